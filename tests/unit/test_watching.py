"""Policy `none` under load: what is not read in time is merged, as vLLM merges it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError

from service.engine.passthrough import PassthroughRequest
from service.engine.request import EngineRequest, ServedModel
from service.load.probe_load import Load
from service.records.sequence import SequenceRecord
from stepgrpo_core import ExitController, ExitSettings
from stepgrpo_core.families.thinking import tokenizer_format
from tests.support.models import TOKENIZER
from tests.support.service.thinking import PROMPT, THINKING

THOUGHT = [7] * 20
END = THINKING.end_id
IDS = [*THOUGHT, END, *[8] * 20]


class Fast:
    """Generates all of it before anybody reads."""

    def __init__(self, *, silent: bool = False) -> None:
        self._last = None if silent else "stop"

    async def generate(self, *_: Any, **__: Any) -> AsyncIterator[RequestOutput]:
        for place, token in enumerate(IDS, start=1):
            finish = self._last if place == len(IDS) else None
            made = CompletionOutput(0, f"<{token}>", [token], None, None, finish_reason=finish)
            yield RequestOutput("r", None, PROMPT, None, [made], finished=finish is not None)


def read(engine: Any) -> list[CompletionOutput]:
    """The outputs that a slow reader gets."""
    writing = tokenizer_format(TOKENIZER, THINKING)
    served = ServedModel(engine, TOKENIZER, writing, Load(capacity=8, share=1.0))
    record = SequenceRecord(0, "m", "none", 1)

    async def play() -> list[CompletionOutput]:
        params = SamplingParams(max_tokens=200, output_kind=RequestOutputKind.DELTA)
        request = EngineRequest("r", {"prompt_token_ids": PROMPT}, params, {})
        controller = ExitController(ExitSettings(policy="none"), THINKING, thinking_open=True)
        run = PassthroughRequest(served, request, [record], [controller], obstacle=lambda: None)
        found = []
        async for each in run.outputs():
            found.append(each.outputs[0])
            await asyncio.sleep(0.01)
        return found

    found = asyncio.run(play())
    assert record.outcome is not None
    assert record.outcome.reasoning_tokens == len(THOUGHT)
    assert record.generated_tokens == len(IDS)
    return found


def test_what_waits_is_merged_and_nothing_is_lost() -> None:
    found = read(Fast())
    assert len(found) < 8
    assert [token for each in found for token in each.token_ids] == IDS
    assert "".join(each.text for each in found) == "".join(f"<{each}>" for each in IDS)


def test_the_end_of_the_thinking_and_of_the_answer_come_alone() -> None:
    found = [list(each.token_ids) for each in read(Fast())]
    assert [END] in found
    assert found[-1] == [IDS[-1]]


def test_a_stream_that_breaks_off_is_no_success() -> None:
    with pytest.raises(EngineDeadError):
        read(Fast(silent=True))
