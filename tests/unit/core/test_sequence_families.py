"""The server's driver of one request, for thinking that several tokens or text mark, in deltas of
any size."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from service.engine.controlled import ControlledRequest
from service.engine.request import EngineRequest, ServedModel
from service.load.probe_load import Load
from service.records.sequence import SequenceRecord
from stepgrpo_core import ExitController, ExitReason, ExitSettings
from stepgrpo_core.families.table import FAMILIES, Family
from stepgrpo_core.families.thinking import thinking_of, tokenizer_format
from tests.support.core.merging import made

SEVERAL = Family("s", start="<|a|>think<|b|>", end="<|c|>think<|b|>", closing="<|c|>think<|b|>!")
THOUGHT, ANSWER = "1+1=2.\nWait, think again.</\nWait, so.", "It is 2."


def tokenizer() -> Any:
    found = made()
    found.add_tokens(["<|a|>", "<|b|>", "<|c|>"], special_tokens=True)
    return found


TOKENIZER = tokenizer()
PROMPT = TOKENIZER.encode("<|user|>1+1?<|end|><|assistant|>")


@dataclass
class Engine:
    """Generates `main` after the prompt and the answer after an exit, in deltas of given sizes."""

    main: str
    sizes: Sequence[int]

    async def abort(self, request_id: str) -> None:
        """Streams are short: nothing to end."""

    async def generate(
        self, prompt: Mapping[str, Any], *_: Any, **__: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        ids = TOKENIZER.encode(self.main if prompt["prompt_token_ids"] == PROMPT else ANSWER)
        for size in itertools.cycle(self.sizes):
            await asyncio.sleep(0)
            last = "stop" if len(ids) <= size else None
            text = TOKENIZER.decode(ids[:size], skip_special_tokens=True)
            completion = CompletionOutput(0, text, ids[:size], None, None, finish_reason=last)
            yield RequestOutput("r", None, PROMPT, None, [completion], finished=last is not None)
            ids = ids[size:]
            if last:
                return


def run(family: Family, policy: str, main: str, sizes: Sequence[int]) -> tuple[str, SequenceRecord]:
    """Text of the ids that came out, marks included, and the account."""
    settings = ExitSettings(
        policy=policy, max_steps=2, answer_reserve=0, budget_leaves_answer=False
    )
    thinking = thinking_of(TOKENIZER, family, family.closing)
    asked = SamplingParams(max_tokens=500, output_kind=RequestOutputKind.DELTA)
    request = EngineRequest("r", {"prompt_token_ids": PROMPT}, asked, {})
    record = SequenceRecord(0, "m", policy, len(PROMPT))
    controller = ExitController(settings, thinking, max_tokens=500)
    engine: Any = Engine(main, sizes)
    served = ServedModel(
        engine, TOKENIZER, tokenizer_format(TOKENIZER, thinking), Load(capacity=8, share=1.0)
    )

    async def collect() -> list[int]:
        ids: list[int] = []
        async for each in ControlledRequest(served, request, [record], [controller]).outputs():
            ids += each.outputs[0].token_ids
        return ids

    return TOKENIZER.decode(asyncio.run(collect()), skip_special_tokens=False), record


@pytest.mark.parametrize("sizes", [[1], [1000], [3], [1, 7, 2]])
@pytest.mark.parametrize("family", [SEVERAL, FAMILIES["think-text"]], ids=["tokens", "text"])
def test_deltas_of_any_size_come_to_the_same(family: Family, sizes: list[int]) -> None:
    whole = f"{family.start}{THOUGHT}{family.closing}{ANSWER}"
    text, record = run(family, "repetition", whole, sizes)
    assert text == whole
    assert record.outcome is not None
    assert (record.outcome.reason, record.outcome.steps) == (ExitReason.NATURAL, 3)
    text, record = run(family, "budget", whole, sizes)
    kept = THOUGHT.rpartition("Wait")[0]
    assert text == f"{family.start}{kept}{family.closing}{ANSWER}"
    assert record.outcome is not None
    assert (record.outcome.reason, record.outcome.steps) == (ExitReason.BUDGET, 2)
    assert record.discarded_tokens >= 1


@pytest.mark.parametrize("family", [SEVERAL, FAMILIES["think-text"]], ids=["tokens", "text"])
def test_a_stream_that_ends_where_an_end_might_begin_loses_nothing(family: Family) -> None:
    begun = f"{family.start}so{family.end[:-2]}"
    text, record = run(family, "none" if family.text else "repetition", begun, [2])
    if family.text:
        assert text == begun
    else:  # which is closed, for an answer to come
        assert text.startswith(f"{family.start}so")
        assert text.endswith(f"{family.closing}{ANSWER}")
    assert record.outcome is not None
