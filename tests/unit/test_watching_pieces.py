"""Policy `none` where deltas hold several tokens (``--stream-interval``, load): a delta ends with
the thinking, so that vLLM's parsers lose nothing behind it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.parser.parser_manager import ParserManager
from vllm.sampling_params import RequestOutputKind, SamplingParams

from service.engine.passthrough import PassthroughRequest
from service.engine.request import EngineRequest, ServedModel
from service.load.probe_load import Load
from service.records.sequence import SequenceRecord
from stepgrpo_core import ExitController, ExitSettings
from stepgrpo_core.families.thinking import tokenizer_format
from tests.support.models import TOKENIZER
from tests.support.service.sequence import ANSWER, THOUGHT
from tests.support.service.thinking import PROMPT, THINKING

TEXT = f"{THOUGHT}</think>\n\n{ANSWER}"
IDS = TOKENIZER.encode(TEXT)


class Packing:
    """Generates `TEXT` for each of `sequences`, `size` tokens in a delta; together, if they are
    merged."""

    def __init__(self, size: int, sequences: int = 1) -> None:
        self._size, self._sequences = size, sequences

    async def generate(self, *_: Any, **__: Any) -> AsyncIterator[RequestOutput]:
        for start in range(0, len(IDS), self._size):
            ids = IDS[start : start + self._size]
            last = "stop" if start + self._size >= len(IDS) else None
            text = TOKENIZER.decode(ids)
            made = [
                CompletionOutput(index, text, ids, None, None, finish_reason=last)
                for index in range(self._sequences)
            ]
            await asyncio.sleep(0.001)
            yield RequestOutput("r", None, PROMPT, None, made, finished=last is not None)

    async def abort(self, _: str) -> None:
        """It has ended by then."""


def read(engine: Packing, sequences: int = 1, **params: Any) -> list[RequestOutput]:
    writing = tokenizer_format(TOKENIZER, THINKING)
    served = ServedModel(engine, TOKENIZER, writing, Load(capacity=8, share=1.0))
    records = [SequenceRecord(index, "m", "none", 1) for index in range(sequences)]

    async def play() -> list[RequestOutput]:
        kind = {"output_kind": RequestOutputKind.DELTA} | params
        asked = SamplingParams(max_tokens=200, n=sequences, **kind)
        controllers = [ExitController(ExitSettings(policy="none"), THINKING) for _ in records]
        request = EngineRequest("r", {"prompt_token_ids": PROMPT}, asked, {})
        run = PassthroughRequest(served, request, records, controllers, obstacle=lambda: None)
        return [each async for each in run.outputs()]

    found = asyncio.run(play())
    assert [each.finished for each in found] == [False] * (len(found) - 1) + [True]
    for record in records:
        assert record.outcome is not None
        assert record.outcome.reasoning_tokens == IDS.index(THINKING.end_id) - 1
    return found


def of(found: list[RequestOutput], index: int) -> list[CompletionOutput]:
    return [each for output in found for each in output.outputs if each.index == index]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 1000])
@pytest.mark.parametrize("sequences", [1, 3])
def test_a_delta_ends_with_the_thinking(size: int, sequences: int) -> None:
    found = read(Packing(size, sequences), sequences)
    for index in range(sequences):
        parts = of(found, index)
        assert [token for each in parts for token in each.token_ids] == IDS
        assert "".join(each.text for each in parts) == TEXT
        assert [each.finish_reason for each in parts[:-1]] == [None] * (len(parts) - 1)
        assert parts[-1].finish_reason == "stop"
        (ending,) = [each for each in parts if THINKING.end_id in each.token_ids]
        assert ending.token_ids[-1] == THINKING.end_id
        assert ending.text.endswith("</think>")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 1000])
@pytest.mark.parametrize("tools", [False, True])
def test_streams_say_what_whole_responses_say(size: int, tools: bool) -> None:
    cls = ParserManager.get_parser("hermes" if tools else None, "qwen3", tools, "m")
    assert cls is not None
    request = ChatCompletionRequest(messages=[], model="m")
    parser, said = cls(TOKENIZER), {"reasoning": "", "content": ""}
    for each in of(read(Packing(size)), 0):
        last = each.finish_reason is not None
        delta = parser.parse_delta(each.text, list(each.token_ids), request, PROMPT, finished=last)
        parts = [name for name in said if delta and getattr(delta, name)]
        assert len(parts) < 2
        for name in parts:
            said[name] += getattr(delta, name)
    thought = THOUGHT.removeprefix("<think>")
    assert said == {"reasoning": thought, "content": f"\n\n{ANSWER}"}


def test_whole_outputs_stay_whole() -> None:
    (whole,) = read(Packing(1000), output_kind=RequestOutputKind.FINAL_ONLY)
    assert whole.outputs[0].text == TEXT


def test_with_vllms_stop_strings_text_may_be_held_back_so_nothing_is_cut() -> None:
    assert len(read(Packing(1000), stop=["zzz"])) == 1
