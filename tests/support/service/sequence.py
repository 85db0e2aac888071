"""One sequence over a scripted engine whose deltas have chosen sizes.

vLLM's deltas depend on load, so a real engine cannot be made to produce given sizes.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from service.engine.controlled import ControlledRequest
from service.engine.request import EngineRequest, ServedModel
from service.load.probe_load import Load
from service.records.sequence import SequenceRecord
from stepgrpo_core import ExitController, ExitSettings
from stepgrpo_core.families.thinking import tokenizer_format
from tests.support.models import TOKENIZER
from tests.support.service.thinking import PROMPT, THINKING

THOUGHT = "<think>\n1+1=2. So 2.\n\nWait, again. 2.\n"
ANSWER = "The final answer is 2. Done."
SIZES = [[1], [1000], [3], [1, 7, 2]]


class ScriptedEngine:
    """An engine that generates one text after the prompt and one after an exit, in given deltas."""

    def __init__(self, main: str, answer: str, sizes: Sequence[int]) -> None:
        self.texts = {True: main, False: answer}
        self.sizes = sizes
        self.silent = False  # its streams end without a final output
        self.aborted: set[str] = set()
        self.asked: list[SamplingParams] = []

    async def abort(self, request_id: str) -> None:
        self.aborted.add(request_id)

    async def generate(
        self, prompt: Mapping[str, Any], params: SamplingParams, request_id: str, **_: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        self.asked.append(params)
        ids = TOKENIZER.encode(self.texts[prompt["prompt_token_ids"] == PROMPT])
        sizes = itertools.cycle(self.sizes)
        while ids:
            await asyncio.sleep(0)
            if request_id in self.aborted:
                yield output([], "abort")
                return
            size = next(sizes)
            last = "stop" if len(ids) <= size and not self.silent else None
            yield output(ids[:size], last)
            ids = ids[size:]


def output(ids: list[int], finish: str | None) -> RequestOutput:
    text = TOKENIZER.decode(ids)
    completion = CompletionOutput(0, text, ids, None, None, finish_reason=finish)
    return RequestOutput("r", None, PROMPT, None, [completion], finished=finish is not None)


def run(
    engine: ScriptedEngine,
    policy: str,
    *,
    shadow: bool = False,
    stops_everywhere: bool = False,
    stop_ids: frozenset[int] = frozenset(),
    adapters: bool = False,
    **params: Any,
) -> tuple[list[tuple[str, list[int]]], SequenceRecord, CompletionOutput]:
    """Return the outputs by delta, the account, and the last delta."""
    settings = ExitSettings(policy=policy, budget_tokens=4, answer_reserve=0, shadow=shadow)
    asked = SamplingParams(max_tokens=200, output_kind=RequestOutputKind.DELTA, **params)
    prompt = {"prompt_token_ids": PROMPT}
    request = EngineRequest(
        "r", prompt, asked, {}, stops_everywhere=stops_everywhere, stop_ids=stop_ids
    )
    record = SequenceRecord(0, "m", policy, len(PROMPT))
    controller = ExitController(settings, THINKING, max_tokens=200)
    load = Load(capacity=8, share=1.0)
    writing = tokenizer_format(TOKENIZER, THINKING)
    served = ServedModel(engine, TOKENIZER, writing, load, scores_prompts=not adapters)

    async def collect() -> list[RequestOutput]:
        return [
            each
            async for each in ControlledRequest(served, request, [record], [controller]).outputs()
        ]

    outputs = asyncio.run(collect())
    assert [each.finished for each in outputs] == [False] * (len(outputs) - 1) + [True]
    deltas = [(each.outputs[0].text, list(each.outputs[0].token_ids)) for each in outputs]
    record.delivered_tokens = sum(len(ids) for _, ids in deltas)
    assert record.aborted_tokens == 0
    return deltas, record, outputs[-1].outputs[0]


def text_of(deltas: list[tuple[str, list[int]]]) -> str:
    return "".join(text for text, _ in deltas)


def ids_of(deltas: list[tuple[str, list[int]]]) -> list[int]:
    return [token for _, ids in deltas for token in ids]


def delta(text: str, finish: str | None = None) -> RequestOutput:
    """Return the output of one token with this text."""
    completion = CompletionOutput(0, text, [1], None, None, finish_reason=finish)
    return RequestOutput("r", None, [1], None, [completion], finished=finish is not None)
