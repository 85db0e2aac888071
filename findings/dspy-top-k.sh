#!/usr/bin/env bash
# DSPy: top_k is dropped without a word, and is sent when an option that DSPy does not know joins it.
#
# Guess: dspy.LM("openai/MODEL", api_base=URL, top_k=5) sends top_k as it sends min_p, or refuses
# it. Seen in 3.4.1: DSPy's own client sends the request if it knows all options, and writes no
# top_k for "openai/". An option that it does not know (min_p, extra_body) makes DSPy send the
# request through LiteLLM, and then top_k is in the body, too.
# For users: with a server such as vLLM, a sampling setting that seems to be set has no effect.
# Give it in extra_body={"top_k": 5}, and look at the bodies that the server receives.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q dspy==3.4.1 litellm==1.110.2

cat > "$folder/top_k.py" <<'PY'
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
    url = f"http://127.0.0.1:{server.server_port}/v1"
    dspy.LM("openai/model", api_base=url, api_key="none", cache=False, **options)("Hi")
    return {key: BODIES[-1][key] for key in BODIES[-1] if key not in ("model", "messages")}


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
NOTED = [
    ({"top_k": 5}, {}),
    ({"top_k": 5, "min_p": 0.1}, {"top_k": 5, "min_p": 0.1}),
    ({"extra_body": {"top_k": 5}}, {"top_k": 5}),
    ({"top_p": 0.5}, {"top_p": 0.5}),
]
print("dspy", dspy.__version__)
print("guess: top_k=5 is sent, or is refused")
seen = [sent(**options) for options, _ in NOTED]
for (options, _), body in zip(NOTED, seen, strict=True):
    print(f"seen: {options} sends {body}")
sys.exit(seen != [body for _, body in NOTED])
PY
LITELLM_LOCAL_MODEL_COST_MAP=True DSPY_CACHEDIR="$folder/cache" \
    "$folder/venv/bin/python" "$folder/top_k.py" 2> "$folder/log" || { cat "$folder/log" >&2; exit 1; }
