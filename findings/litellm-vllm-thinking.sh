#!/usr/bin/env bash
# litellm: for vLLM a thinking budget becomes an effort, and "disabled" becomes nothing.
#
# Guess: completion("hosted_vllm/MODEL", thinking={"type": "enabled", "budget_tokens": 100}) sends
# the number, for which vLLM has thinking_token_budget, and {"type": "disabled"} switches thinking
# off or is refused. Seen in 1.110.2: a budget is sent as a reasoning_effort: "minimal" under 1 024
# tokens, "low" from there, "medium" from 2 048, "high" from 4 096. "disabled" sends no field at
# all, so a model that thinks by default goes on thinking.
# For users: such a budget bounds nothing, since vLLM hands an effort to the chat template, and most
# templates ignore it. Send extra_body={"thinking_token_budget": 100}, or
# extra_body={"chat_template_kwargs": {"enable_thinking": False}}.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q litellm==1.110.2

cat > "$folder/thinking.py" <<'PY'
import importlib.metadata
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import litellm

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


def sent(thinking):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    messages = [{"role": "user", "content": "Hi"}]
    litellm.completion(
        "hosted_vllm/model", messages, api_base=url, api_key="none", thinking=thinking
    )
    return {key: BODIES[-1][key] for key in BODIES[-1] if key not in ("model", "messages")}


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
NOTED = {100: "minimal", 1024: "low", 2048: "medium", 4096: "high", 30000: "high"}
print("litellm", importlib.metadata.version("litellm"))
print("guess: the number of tokens is sent; disabled switches off")
wrong = False
for budget, effort in NOTED.items():
    body = sent({"type": "enabled", "budget_tokens": budget})
    print(f"seen: a budget of {budget} tokens sends {body}")
    wrong |= body != {"reasoning_effort": effort}
body = sent({"type": "disabled"})
print(f"seen: disabled sends {body}")
sys.exit(wrong or body != {})
PY
LITELLM_LOCAL_MODEL_COST_MAP=True "$folder/venv/bin/python" "$folder/thinking.py" 2> "$folder/log" || { cat "$folder/log" >&2; exit 1; }
