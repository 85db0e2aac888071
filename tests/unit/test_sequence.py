"""The driver of one request over a scripted engine: deltas that come in any pieces."""

import pytest
from vllm.v1.engine.exceptions import EngineDeadError

from tests.support.models import TOKENIZER
from tests.support.service.sequence import (
    ANSWER,
    SIZES,
    THOUGHT,
    ScriptedEngine,
    ids_of,
    run,
    text_of,
)


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
