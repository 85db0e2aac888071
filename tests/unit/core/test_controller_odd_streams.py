"""Streams as no one would wish them: what the controller makes of each."""

from dataclasses import replace

import pytest

from stepgrpo_core import ExitSettings, Finished, ProbeAnswered, State, Tokens
from stepgrpo_core.control.controller import ExitController
from tests.support.core.scripted import END, START, THINKING, Script, play, trial

CONFIDENT = ExitSettings(policy="confidence", min_interval=0, answer_reserve=0)
LATE = ["<think>", "a", "\n", "Wait", ",", " b", "</think>"]


def test_of_two_ends_of_the_thinking_the_first_counts() -> None:
    words = ["<think>", "a", "</think>", "5", "</think>", " Wait", ",", " x", ""]
    played = play(Script(words, confidences=lambda _: 0.99), CONFIDENT)
    assert (played.outcome.reason, played.outcome.reasoning_tokens) == ("natural", 1)
    assert (played.outcome.steps, played.outcome.probes) == (1, 0)
    assert played.emitted == Script(words).ids


def test_thinking_that_opens_in_the_answer_is_answer() -> None:
    words = ["<think>", "a", "</think>", "5", "<think>", "b", " Wait", ",", " c", "</think>", ""]
    played = play(Script(words, confidences=lambda _: 0.99), CONFIDENT)
    assert (played.outcome.reason, played.outcome.reasoning_tokens) == ("natural", 1)
    assert (played.outcome.steps, played.outcome.probes) == (1, 0)


@pytest.mark.parametrize("sure", [0.1, 0.99])
def test_the_limit_reached_while_a_probe_runs(sure: float) -> None:
    """The probe draws on no token of the limit, and still decides if an answer fits."""
    script = Script([*LATE[:-1], " c", " d", " e"], confidences=lambda _: sure)
    played = play(script, CONFIDENT, max_tokens=8, answer_now=lambda tick: False)
    if sure < 0.5:
        assert (played.outcome.reason, played.emitted) == ("length", script.ids[:8])
    else:
        kept = [*script.ids[:3], *THINKING.closing_ids]
        assert played.outcome.reason == "confident"
        assert played.emitted == [*kept, *script.answer[: 8 - len(kept)]]
    cramped = play(
        script, replace(CONFIDENT, answer_reserve=4), max_tokens=8, answer_now=lambda tick: False
    )
    assert (cramped.outcome.reason, cramped.outcome.probes) == ("length", 0)


def test_a_probe_that_says_exit_when_the_client_has_left_changes_nothing() -> None:
    controller = ExitController(CONFIDENT, THINKING, thinking_open=True)
    controller.receive(Tokens([210, 211, 212], ["a", " Wait", ","]), Finished("abort"))
    assert controller.receive(ProbeAnswered(0, trial(0.99))) == []
    assert (controller.state, controller.outcome.reason) == (State.DONE, "client")


@pytest.mark.parametrize("together", [True, False])
def test_a_probe_that_says_exit_while_the_stream_ends_gives_one_end(together: bool) -> None:
    """The decision belongs to its place in the thinking, so it stands; and comes once."""
    script = Script([*LATE, "5", ""], confidences=lambda _: 0.99)
    played = play(
        script,
        CONFIDENT,
        chunk=lambda tick: 99 if together else 1,
        answer_now=lambda tick: False,
    )
    assert played.emitted == [*script.ids[:3], *THINKING.closing_ids, *script.answer]
    assert played.emitted.count(END) == 1
    assert played.outcome.reason == "confident"


def test_min_tokens_delays_the_first_exit() -> None:
    words = ["<think>", *["x", " Wait", ","] * 10, "</think>", ""]
    script = Script(words, confidences=lambda _: 0.99)
    played = play(script, replace(CONFIDENT, min_tokens=12))
    assert played.close is not None
    assert played.close.position == 14  # the first marker with 12 tokens of thinking before it
    assert script.ids[0] == START
