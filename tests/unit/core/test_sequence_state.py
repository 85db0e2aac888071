"""The account that all drivers share. That it agrees with what is emitted, every played script
asserts (see `tests.support.core.scripted`)."""

from dataclasses import replace

import pytest

from stepgrpo_core import (
    CancelProbe,
    CloseThinking,
    ExitController,
    ExitSettings,
    ProbeAnswered,
    ProbeRefused,
    ProtocolViolation,
)
from stepgrpo_core.control.sequence import SequenceState
from tests.support.core.scripted import CONFIDENT, END, EOS, THINKING, trial

IDS, TEXTS = [210, 211, 212, 213, 214], ["a", " Wait", " b", " Wait", " c"]
CLOSING = list(THINKING.closing_ids)


def state_of(settings: ExitSettings = CONFIDENT, max_tokens: int | None = 20) -> SequenceState:
    controller = ExitController(settings, THINKING, max_tokens=max_tokens, thinking_open=True)
    return SequenceState(controller, (90, 91))


def exited() -> SequenceState:
    state = state_of()
    state.take(IDS, TEXTS)
    state.end_probe(ProbeAnswered(0, trial(0.99)))
    return state


def test_a_completion_without_an_exit_is_what_was_generated() -> None:
    state = state_of(ExitSettings())
    state.take([*IDS, END, 50], [*TEXTS, "</think>", "x"])
    state.take([EOS], cause="eos")
    assert state.ids == [*IDS, END, 50, EOS]
    assert (state.cut_at, state.closing_ids, state.discarded_tokens) == (None, (), 0)
    assert not any(state.injected)
    assert state.done
    assert state.ended


def test_an_exit_cuts_injects_and_answers_within_the_limit() -> None:
    state = exited()
    assert (state.cut_at, state.discarded_tokens) == (1, 4)
    assert state.prefix_ids == [210, *CLOSING]
    assert state.answer_max_tokens == 20 - 1 - len(CLOSING)
    assert state_of(max_tokens=None).answer_max_tokens is None
    assert (state.answering, state.ended) == (True, False)
    state.take([50, EOS], cause="eos")
    assert state.ids == [210, *CLOSING, 50, EOS]
    assert state.injected == [False, True, True, True, False, False]
    logprobs = state.column([-1.0] * 5, [None] * 3, [-2.0, -3.0])
    assert logprobs == [-1.0, None, None, None, -2.0, -3.0]
    assert (state.main.cause, state.answer.cause, state.ended) == (None, "eos", True)
    assert state.outcome.reason == "confident"


def test_the_answer_of_a_canceled_probe_is_ignored() -> None:
    state = state_of()
    state.take(IDS, TEXTS)
    assert list(state.probes) == [0, 1]
    commands = state.end_probe(ProbeAnswered(0, trial(0.99)))
    assert CancelProbe(1) in commands
    assert any(isinstance(each, CloseThinking) for each in commands)
    assert state.probes == {}
    assert state.end_probe(ProbeAnswered(1, trial(0.99))) == []


def test_a_refusal_counts_even_if_the_probe_was_canceled_meanwhile() -> None:
    state = exited()
    state.end_probe(ProbeRefused(1))
    state.abort()
    assert state.outcome.probes == 1


def test_thinking_must_come_with_its_text() -> None:
    with pytest.raises(ProtocolViolation, match="without their text"):
        state_of().take(IDS)


def test_an_abort_ends_it_once() -> None:
    state = state_of()
    state.take(IDS, TEXTS)
    assert state.abort()[:2] == [CancelProbe(0), CancelProbe(1)]
    assert (state.done, state.ended, state.abort()) == (True, False, [])


def test_no_exit_leaves_an_answer_without_a_token() -> None:
    needed = 1 + len(CLOSING) + 1
    for limit, probes in ((needed, 1), (needed - 1, 0)):
        state = state_of(replace(CONFIDENT, answer_reserve=0), limit)
        state.take(IDS[:3], TEXTS[:3])
        assert len(state.probes) == probes
