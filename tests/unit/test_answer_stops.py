"""One meaning of `stop` for all requests: it applies to the answer alone, whatever the policy."""

from typing import Any

import pytest
from vllm.sampling_params import SamplingParams

from service.streams.stop_strings import AnswerStops, without_stops
from tests.support.models import TOKENIZER
from tests.support.service.sequence import (
    ANSWER,
    SIZES,
    THOUGHT,
    ScriptedEngine,
    delta,
    ids_of,
    run,
    text_of,
)

UNDER: dict[str, dict[str, Any]] = {
    "none": {"policy": "none"},
    "a policy that does not fire": {"policy": "repetition"},
    "shadow mode": {"policy": "budget", "shadow": True},
}


@pytest.mark.parametrize("under", UNDER.values(), ids=UNDER)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("stop", [["2"], ["final", "Wait"], ["\n\n", "is"], ["1+1"], ["ink>"]])
def test_every_policy_gives_the_same_answer(
    under: dict[str, Any], sizes: list[int], stop: list[str]
) -> None:
    engine = ScriptedEngine(f"{THOUGHT}</think>\n\n{ANSWER}", "", sizes)
    deltas, record, last = run(engine, stop=stop, **under)
    found = next((each for each in stop if each in ANSWER), None)
    said = ANSWER if found is None else ANSWER[: ANSWER.index(found)]
    assert text_of(deltas) == f"{THOUGHT}</think>\n\n{said}"
    assert (last.finish_reason, last.stop_reason) == ("stop", found)
    assert engine.asked[0].stop == []
    assert record.outcome is not None
    assert record.outcome.reason == "natural"
    assert record.generated_tokens - record.discarded_tokens == len(ids_of(deltas))


@pytest.mark.parametrize("under", UNDER.values(), ids=UNDER)
@pytest.mark.parametrize("sizes", SIZES)
def test_stop_tokens_apply_to_the_answer_alone_too(under: dict[str, Any], sizes: list[int]) -> None:
    token = TOKENIZER.encode("2")[0]
    assert token in TOKENIZER.encode(THOUGHT)
    engine = ScriptedEngine(f"{THOUGHT}</think>\n\n{ANSWER}", "", sizes)
    options: dict[str, Any] = {"stop_token_ids": [token], "stop_ids": frozenset({token})}
    deltas, record, last = run(engine, **under, **options)
    assert text_of(deltas) == f"{THOUGHT}</think>\n\n{ANSWER[: ANSWER.index('2')]}"
    assert ids_of(deltas)[-1] == token  # delivered without its text, as vLLM does it
    assert (last.finish_reason, last.stop_reason) == ("stop", token)
    assert engine.asked[0].stop_token_ids == []
    assert record.generated_tokens - record.discarded_tokens == len(ids_of(deltas))


def test_after_an_exit_the_answers_stream_has_the_stop_tokens() -> None:
    engine = ScriptedEngine(f"{THOUGHT}</think>{ANSWER}", ANSWER, [3])
    run(engine, "budget", stop_token_ids=[5], stop_ids=frozenset({5}))
    assert [each.stop_token_ids for each in engine.asked] == [[], [5]]


def test_taking_stops_away_leaves_the_clients_parameters_as_they_are() -> None:
    asked = SamplingParams(stop=["a"], stop_token_ids=[3, 4], skip_clone=True)
    own = without_stops(asked, frozenset({4}))
    assert (own.stop, own.stop_token_ids, own.all_stop_token_ids) == ([], [3], {3})
    assert (asked.stop, asked.stop_token_ids, asked.all_stop_token_ids) == (["a"], [3, 4], {3, 4})


def said_by(stops: AnswerStops, texts: list[str]) -> list[str]:
    outputs = [stops.take(delta(text), number) for number, text in enumerate(texts, 1)]
    return [each.outputs[0].text for each in outputs]


@pytest.mark.parametrize("stop", ["\n\n", "\n", " ", "\nThe", "\n\nT"])
def test_white_space_before_the_answer_is_no_part_of_it(stop: str) -> None:
    stops = AnswerStops(SamplingParams(stop=[stop]))
    said = "".join(said_by(stops, ["\n", "\n", "The end."]))
    assert stops.stopped is (stop == " ")
    assert said == "\n\nThe" if stops.stopped else said + stops.tail == "\n\nThe end."


def test_white_space_in_the_answer_is() -> None:
    stops = AnswerStops(SamplingParams(stop=["\n\n"]))
    assert "".join(said_by(stops, ["\n\nThe", " end.", "\n", "\n"])) == "\n\nThe end."
    assert stops.stopped


@pytest.mark.parametrize("included", [False, True])
def test_a_stop_token_is_said_as_a_stop_string_is(included: bool) -> None:
    params = SamplingParams(stop=["zzz"], include_stop_str_in_output=included)
    stops = AnswerStops(params, ids=frozenset({1}))
    (said,) = said_by(stops, ["end"])
    assert (said, stops.stopped) == ("end" if included else "", True)


def test_a_stop_token_waits_for_min_tokens_and_for_the_answer() -> None:
    stops = AnswerStops(SamplingParams(min_tokens=3), ids=frozenset({1}))
    said_by(stops, ["\n", "a", "b"])
    assert not stops.stopped
    said_by(stops, ["\n", "a", "b", "c"])
    assert stops.stopped


def test_what_turns_out_to_be_a_thought_loses_nothing_that_was_held_back() -> None:
    stops = AnswerStops(SamplingParams(stop=["again"]))
    held = "".join(said_by(stops, ["So", " ag"]))
    assert held + stops.leave(delta("</think>")).outputs[0].text == "So ag</think>"
    assert stops.leave(delta("\n")).outputs[0].text == "\n"
