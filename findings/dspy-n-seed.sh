#!/usr/bin/env bash
# DSPy: n completions with a seed are n requests with the same seed, so n times the same completion.
#
# Guess: dspy.LM("openai/MODEL", api_base=URL, n=3, seed=1, temperature=1.0) sends one request with
# n=3, and the server makes three different samples from the seed. Seen in 3.4.1: its own client
# sends three requests without n, all with seed=1, and a server that keeps to seeds answers all
# three alike. With an option that this client does not know (min_p), LiteLLM sends one with n=3.
# For users: majority votes and best-of-n over such a list compare one sample with itself, and the
# prompt is paid for n times. Leave the seed out, or give n calls a seed each.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q dspy==3.4.1 litellm==1.110.2

cat > "$folder/n_seed.py" <<'PY'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import dspy

BODIES = []


class Server(BaseHTTPRequestHandler):
    """Keeps the bodies of chat requests, and answers each."""

    def do_POST(self):
        BODIES.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        message = {"role": "assistant", "content": "Hello."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        about = {"id": "1", "object": "chat.completion", "created": 1, "model": "model"}
        answer = json.dumps(about | {"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Nothing is logged."""


def sent(**options):
    url, before = f"http://127.0.0.1:{server.server_port}/v1", len(BODIES)
    given = {"temperature": 1.0, "api_base": url, "api_key": "none", "cache": False} | options
    dspy.LM("openai/model", **given)("Hi")
    return [{key: body[key] for key in ("n", "seed") if key in body} for body in BODIES[before:]]


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
NOTED = [
    ({"n": 3, "seed": 1}, [{"seed": 1}] * 3),
    ({"n": 3, "seed": 1, "min_p": 0.1}, [{"n": 3, "seed": 1}]),
]
print("dspy", dspy.__version__)
print("guess: n=3, seed=1 is one request with n=3 and the seed")
seen = [sent(**options) for options, _ in NOTED]
for (options, _), bodies in zip(NOTED, seen, strict=True):
    print(f"seen: {options} sends {bodies}")
sys.exit(seen != [bodies for _, bodies in NOTED])
PY
LITELLM_LOCAL_MODEL_COST_MAP=True DSPY_CACHEDIR="$folder/cache" \
    "$folder/venv/bin/python" "$folder/n_seed.py" 2> "$folder/log" || { cat "$folder/log" >&2; exit 1; }
