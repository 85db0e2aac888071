"""The driver of one request over a scripted engine: deltas that come in any pieces.

How many tokens vLLM packs into a delta is a matter of load, so a real engine cannot be made to.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError

from service.controlled import Controlled
from service.job import Job, Served
from service.ledger import SequenceRecord
from service.load import Load
from stepgrpo_core import ExitController, ExitSettings
from stepgrpo_core.thinking import writing_of
from tests.support.models import TOKENIZER
from tests.support.service.thinking import PROMPT, THINKING

THOUGHT = "<think>\n1+1=2. So 2.\n\nWait, again. 2.\n"
ANSWER = "The final answer is 2. Done."


class ScriptedEngine:
    """Generates one text after the prompt and one after an exit, in deltas of given sizes."""

    def __init__(self, main: str, answer: str, sizes: Sequence[int]) -> None:
        self.texts = {True: main, False: answer}
        self.sizes = sizes
        self.silent = False  # its streams end without a last output
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
    """What comes out, delta by delta; the account; the last delta."""
    settings = ExitSettings(policy=policy, budget_tokens=4, answer_reserve=0, shadow=shadow)
    asked = SamplingParams(max_tokens=200, output_kind=RequestOutputKind.DELTA, **params)
    prompt = {"prompt_token_ids": PROMPT}
    job = Job("r", prompt, asked, {}, stops_everywhere=stops_everywhere, stop_ids=stop_ids)
    record = SequenceRecord(0, "m", policy, len(PROMPT))
    controller = ExitController(settings, THINKING, max_tokens=200)
    load = Load(capacity=8, share=1.0)
    writing = writing_of(TOKENIZER, THINKING)
    served = Served(engine, TOKENIZER, writing, load, scores_prompts=not adapters)

    async def collect() -> list[RequestOutput]:
        return [each async for each in Controlled(served, job, [record], [controller]).outputs()]

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


SIZES = [[1], [1000], [3], [1, 7, 2]]


@pytest.mark.parametrize("policy", ["budget", "repetition"])  # in the answer, in the thinking
def test_a_stream_that_breaks_off_is_no_success(policy: str) -> None:
    engine = ScriptedEngine(THOUGHT, ANSWER, [3])
    engine.silent = True
    with pytest.raises(EngineDeadError):
        run(engine, policy)


@pytest.mark.parametrize("sizes", SIZES)
def test_a_delta_ends_with_the_thinking(sizes: list[int]) -> None:
    engine = ScriptedEngine(f"{THOUGHT}</think>\n\n{ANSWER}", "", sizes)
    deltas, record, _ = run(engine, "repetition")
    assert text_of(deltas) == f"{THOUGHT}</think>\n\n{ANSWER}"
    assert ids_of(deltas) == TOKENIZER.encode(text_of(deltas))
    assert record.outcome is not None
    assert record.outcome.reason == "natural"
    [closing] = [text for text, _ in deltas if "</think>" in text]
    assert closing.endswith("</think>")


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("stop", [["2"], ["final", "Wait"], ["\n"], [" is 2."]])
def test_stop_strings_apply_to_the_answer_alone(sizes: list[int], stop: list[str]) -> None:
    engine = ScriptedEngine(f"{THOUGHT}</think>{ANSWER}", "", sizes)
    deltas, record, last = run(engine, "repetition", stop=stop)
    assert engine.asked[0].stop == []
    found = next((each for each in stop if each in ANSWER), None)
    said = ANSWER if found is None else ANSWER[: ANSWER.index(found)]
    assert text_of(deltas) == f"{THOUGHT}</think>{said}"
    assert last.finish_reason == "stop"
    assert last.stop_reason == found
    # Tokens are kept up to the one that completed the string; the others are accounted for.
    ids = ids_of(deltas)
    assert ids == TOKENIZER.encode(f"{THOUGHT}</think>{ANSWER}")[: len(ids)]
    kept = TOKENIZER.decode(ids).partition("</think>")[2]
    assert found is None or (
        found in kept and found not in TOKENIZER.decode(ids[:-1])[-len(kept) :]
    )
    assert record.generated_tokens - record.discarded_tokens == len(ids)
    assert record.outcome is not None
    assert record.outcome.reason == "natural"


@pytest.mark.parametrize("sizes", SIZES)
def test_without_thinking_they_apply_from_the_first_word(sizes: list[int]) -> None:
    engine = ScriptedEngine(f"\n{ANSWER}", "", sizes)
    deltas, _, last = run(engine, "repetition", stop=["The final"])
    assert (text_of(deltas), last.stop_reason) == ("\n", "The final")


@pytest.mark.parametrize("sizes", SIZES)
def test_after_an_exit_the_answers_stream_has_them(sizes: list[int]) -> None:
    engine = ScriptedEngine(f"{THOUGHT}</think>{ANSWER}", ANSWER, sizes)
    deltas, record, _ = run(engine, "budget", stop=["1", "W"])
    main, answer = engine.asked
    assert (main.stop, answer.stop) == ([], ["1", "W"])
    assert text_of(deltas) == f"<think>\n1+1\n</think>\n\n{ANSWER}"
    assert record.outcome is not None
    assert record.outcome.reason == "budget"


@pytest.mark.parametrize("policy", ["budget", "none"])
def test_the_operator_can_leave_them_to_vllm(policy: str) -> None:
    engine = ScriptedEngine(f"{THOUGHT}</think>{ANSWER}", ANSWER, [1])
    run(engine, policy, stops_everywhere=True, stop=["2"], stop_token_ids=[3])
    assert (engine.asked[0].stop, engine.asked[0].stop_token_ids) == (["2"], [3])


def test_with_adapters_no_log_probs_of_the_prompt_are_asked_for() -> None:
    for adapters in (True, False):
        engine = ScriptedEngine(f"{THOUGHT}</think>{ANSWER}", ANSWER, [1])
        if not adapters:
            with pytest.raises(AssertionError):  # this engine brings none
                run(engine, "budget", logprobs=1)
        else:
            run(engine, "budget", adapters=True, logprobs=1)
        assert engine.asked[1].prompt_logprobs == (None if adapters else 1)
