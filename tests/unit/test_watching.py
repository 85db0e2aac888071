"""Policy `none`: what passes is counted exactly, however the stream ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.output_processor import RequestOutputCollector
from vllm.v1.metrics.stats import RequestStateStats

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


class Engine:
    """Vllm's collector and its counter of the request; `step` generates, `read` may be late."""

    def __init__(self, *, counts: bool = True, breaks_off: bool = False) -> None:
        self._stats = RequestStateStats() if counts else None
        self._breaks_off = breaks_off
        self._collector = RequestOutputCollector(RequestOutputKind.DELTA, "r")
        self._aborted = False
        self.ended = False  # its generator has run to its end
        self.generated = 0

    def step(self) -> None:
        token = IDS[self.generated]
        self.generated += 1
        if self._stats:
            self._stats.num_generation_tokens += 1
        last = self.generated == len(IDS) and not self._breaks_off
        self._put([token], f"<{token}>", "stop" if last else None)

    def _put(self, ids: list[int], text: str, finish: str | None) -> None:
        made = CompletionOutput(0, text, ids, None, None, finish_reason=finish)
        done = finish is not None
        output = RequestOutput("r", None, PROMPT, None, [made], done, metrics=self._stats)
        self._collector.put(output)

    async def abort(self, _: str) -> None:
        if not self._aborted:
            self._aborted = True
            self._put([], "", "abort")

    async def generate(self, *_: Any, **__: Any) -> AsyncIterator[RequestOutput]:
        finished = False
        try:
            while not finished and not (self._breaks_off and self.generated == len(IDS)):
                output = self._collector.get_nowait() or await self._collector.get()
                assert isinstance(output, RequestOutput)
                finished = output.finished
                yield output
            self.ended = True
        except (asyncio.CancelledError, GeneratorExit):
            await self.abort("r")
            raise


def passed(engine: Engine) -> tuple[PassthroughRequest, SequenceRecord]:
    writing = tokenizer_format(TOKENIZER, THINKING)
    served = ServedModel(engine, TOKENIZER, writing, Load(capacity=8, share=1.0))
    record = SequenceRecord(0, "m", "none", 1)
    params = SamplingParams(max_tokens=200, output_kind=RequestOutputKind.DELTA)
    request = EngineRequest("r", {"prompt_token_ids": PROMPT}, params, {})
    controller = ExitController(ExitSettings(policy="none"), THINKING, thinking_open=True)
    return PassthroughRequest(
        served, request, [record], [controller], obstacle=lambda: None
    ), record


def read(engine: Engine, *, at_once: int) -> list[CompletionOutput]:
    """Return what a client gets that comes back after every `at_once` tokens."""

    async def play() -> tuple[list[CompletionOutput], SequenceRecord]:
        run, record = passed(engine)
        found = list[CompletionOutput]()

        async def client() -> None:
            found.extend([each.outputs[0] async for each in run.outputs()])

        reading = asyncio.create_task(client())
        while engine.generated < len(IDS):
            for _ in range(min(at_once, len(IDS) - engine.generated)):
                engine.step()
            await asyncio.sleep(0.001)
        await reading
        return found, record

    found, record = asyncio.run(play())
    assert record.outcome is not None
    assert record.outcome.reasoning_tokens == len(THOUGHT)
    assert record.generated_tokens == len(IDS)
    assert [token for each in found for token in each.token_ids] == IDS
    assert "".join(each.text for each in found) == "".join(f"<{each}>" for each in IDS)
    return found


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("at_once", [1, 5, 1000])
def test_nothing_is_lost(at_once: int, counts: bool) -> None:
    engine = Engine(counts=counts)
    found = read(engine, at_once=at_once)
    assert engine.ended
    assert len(found) <= -(-len(IDS) // at_once) + 1  # a delta is split at the thinking's end


def test_a_stream_that_breaks_off_is_no_success() -> None:
    with pytest.raises(EngineDeadError):
        read(Engine(breaks_off=True), at_once=1)


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("tokens", [0, 1, 2, 30])
def test_what_was_generated_for_a_client_that_left_is_counted(tokens: int, counts: bool) -> None:
    """The last two tokens wait for a client that is canceled before it can read them."""
    engine = Engine(counts=counts)

    async def play() -> SequenceRecord:
        run, record = passed(engine)

        async def client() -> None:
            async with contextlib.aclosing(run.outputs()) as outputs:
                async for _ in outputs:
                    pass

        reading = asyncio.create_task(client())
        for _ in range(tokens):
            await asyncio.sleep(0.001)
            engine.step()
        await asyncio.sleep(0.001)
        engine.step()
        engine.step()
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        await run.close()
        return record

    record = asyncio.run(play())
    assert record.generated_tokens == engine.generated == tokens + 2


def test_a_client_that_leaves_at_once_has_started_nothing() -> None:
    async def play() -> tuple[SequenceRecord, int]:
        run, record = passed(engine := Engine())
        reading = asyncio.create_task(anext(run.outputs()))
        await asyncio.sleep(0)
        reading.cancel()
        await run.close()
        return record, engine.generated

    record, generated = asyncio.run(play())
    assert record.generated_tokens == generated == 0
    assert record.outcome is not None


def test_an_error_ends_the_request_without_another_token() -> None:
    async def play() -> None:
        run, _ = passed(engine := Engine())
        outputs = run.outputs()
        engine.step()
        await anext(outputs)
        asyncio.get_running_loop().call_soon(run.abort, TimeoutError("drained"))
        with pytest.raises(TimeoutError, match="drained"):
            await anext(outputs)
        await run.close()

    asyncio.run(play())
