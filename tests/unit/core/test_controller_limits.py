"""The exit controller: limits of its questions, failures, and its contract."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from stepgrpo_core import (
    CancelProbe,
    Emit,
    ExitController,
    ExitReason,
    Finished,
    PolicyFailed,
    ProbeAnswered,
    ProbeRefused,
    ProtocolViolation,
    StartProbe,
    State,
    Tokens,
    policies,
)
from stepgrpo_core.policies import Verdict
from stepgrpo_core.policies.budget import BudgetPolicy
from stepgrpo_core.policies.confidence import ConfidencePolicy
from tests.support.core.scripted import (
    CONFIDENT,
    ONE_STEP,
    THINKING,
    TWO_STEPS,
    Script,
    play,
    sure_from,
    trial,
)

# Limits.


def test_never_more_probes_than_allowed() -> None:
    words = ["<think>", *["x", " Wait", ","] * 20, "</think>", ""]
    played = play(Script(words), replace(CONFIDENT, max_probes=3))
    assert played.outcome.probes == len(played.probes) == 3
    assert played.outcome.steps == 21
    assert play(Script(words), replace(CONFIDENT, max_probes=0)).probes == []


def test_probes_keep_their_distance_and_wait_for_min_tokens() -> None:
    words = ["<think>", *["x", " Wait", ","] * 20, "</think>", ""]
    played = play(Script(words), replace(CONFIDENT, min_interval=10, min_tokens=7))
    positions = [each.position for each in played.probes]
    assert positions[0] == 8
    assert all(b - a >= 10 for a, b in itertools.pairwise(positions))


def test_no_exit_without_room_for_the_answer() -> None:
    script = Script(ONE_STEP, confidences=sure_from(0))
    settings = replace(CONFIDENT, answer_reserve=5)
    needed = 4 + len(THINKING.closing_ids) + 5
    assert play(script, settings, max_tokens=needed).outcome.reason == "confident"
    assert play(script, settings, max_tokens=needed - 1).outcome.probes == 0


def test_a_marker_at_the_very_start_is_no_place_to_exit() -> None:
    words = ["<think>", "Wait", ",", "</think>", ""]
    assert play(Script(words, confidences=sure_from(0)), CONFIDENT).outcome.probes == 0


def test_shadow_mode_decides_records_and_changes_nothing() -> None:
    script = Script(TWO_STEPS, confidences=sure_from(0))
    played = play(script, replace(CONFIDENT, shadow=True), answer_now=lambda tick: False)
    assert played.emitted == script.ids
    assert (played.outcome.reason, played.outcome.shadow_reason) == ("natural", "confident")
    assert played.outcome.steps == 3
    controller = ExitController(replace(CONFIDENT, shadow=True), THINKING, thinking_open=True)
    assert Emit(3) in controller.receive(Tokens([210, 211, 212], ["a", " Wait", ","]))


def test_failed_probes_are_no_exit_and_three_in_a_row_end_probing() -> None:
    words = ["<think>", *["x", " Wait", ","] * 20, "</think>", ""]
    failing = play(Script(words, confidences=lambda _: None), CONFIDENT)
    assert (failing.outcome.reason, failing.outcome.failed_probes) == ("natural", 3)
    some = play(Script(words, confidences=lambda at: None if at % 2 else 0.1), CONFIDENT)
    assert some.outcome.probes == CONFIDENT.max_probes


def test_a_refused_probe_was_not_asked_and_costs_only_the_interval() -> None:
    words = ["<think>", *["x", " Wait", ","] * 40, "</think>", ""]
    settings = replace(CONFIDENT, max_probes=2, min_interval=6)
    controller = ExitController(settings, THINKING)
    script, started = Script(words), []
    for token, text in zip(script.ids, words, strict=True):
        for command in controller.receive(Tokens([token], [text])):
            if isinstance(command, StartProbe):
                started.append(command)
                refused = len(started) <= 4
                answer = ProbeAnswered(command.probe, trial(0.1))
                controller.receive(ProbeRefused(command.probe) if refused else answer)
    controller.receive(Finished("eos"))
    assert len(started) == 6  # the refused ones are not among the two
    assert all(b.position - a.position >= 6 for a, b in itertools.pairwise(started))
    assert (controller.outcome.probes, controller.outcome.failed_probes) == (2, 0)
    assert controller.outcome.reason == "natural"


def test_a_refused_probe_holds_no_text_back() -> None:
    controller = ExitController(CONFIDENT, THINKING, thinking_open=True)
    assert Emit(1) in controller.receive(Tokens([210, 211, 212], ["a", " Wait", ","]))
    assert controller.receive(ProbeRefused(0)) == [Emit(2)]
    controller.receive(ProbeRefused(0), Finished("abort"))  # late, and harmless


def test_each_question_tells_what_came_of_it() -> None:
    settings = replace(CONFIDENT, max_probes=5)
    controller = ExitController(settings, THINKING)
    words = ["<think>", "a", " b", *([" Wait", " c"] * 4), " d"]
    ids = list(range(10, 10 + len(words)))
    ids[0] = THINKING.start_id
    controller.receive(Tokens(ids, words))
    answers: list[ProbeAnswered | ProbeRefused] = [
        ProbeAnswered(0, trial(0.5)),
        ProbeAnswered(1, None),
        ProbeRefused(2),
    ]
    controller.receive(*answers, ProbeAnswered(3, trial(0.99)))
    declined, failed, refused, fired = controller.asked
    assert [each.boundary.steps for each in controller.asked] == [1, 2, 3, 4]
    assert declined.verdict == Verdict(None, 0.5)
    assert fired.verdict == Verdict(ExitReason.CONFIDENT, 0.99)
    assert failed.verdict is refused.verdict is None
    assert [each.answered for each in controller.asked] == [True, True, False, True]
    assert failed.answer is None


def test_a_client_that_leaves_cancels_everything() -> None:
    controller = ExitController(CONFIDENT, THINKING, thinking_open=True)
    controller.receive(Tokens([210, 211, 212], ["a", " Wait", ","]))
    assert controller.receive(Finished("abort"))[0] == CancelProbe(0)
    assert (controller.state, controller.outcome.reason) == (State.DONE, "client")


def test_an_abort_after_the_end_of_the_stream_is_allowed() -> None:
    controller = ExitController(CONFIDENT, THINKING, thinking_open=True)
    controller.receive(Tokens([210, 211, 212], ["a", " Wait", ","]))
    controller.receive(Finished("eos"))
    before = controller.state
    controller.receive(Finished("abort"))
    assert (before, controller.state) == (State.THINKING, State.DONE)  # the probe decides first


# The contract.


def test_what_the_state_does_not_allow_is_a_violation() -> None:
    controller = ExitController(CONFIDENT, THINKING)
    with pytest.raises(ProtocolViolation, match="never started"):
        controller.receive(ProbeAnswered(0, None))
    with pytest.raises(ProtocolViolation, match="never started"):
        controller.receive(ProbeRefused(0))
    with pytest.raises(ProtocolViolation, match="PRELUDE"):
        _ = controller.outcome
    with pytest.raises(ProtocolViolation, match="2 tokens came with 1 texts"):
        controller.receive(Tokens([1, 2], ["a"]))
    controller.receive(Finished("eos"))
    for event in (Tokens([1], ["a"]), Finished("eos"), Finished("abort")):
        with pytest.raises(ProtocolViolation):
            controller.receive(event)


class Faulty(ConfidencePolicy):
    """Exits at the first trial, or fails there."""

    deed: Callable[[], Verdict] = staticmethod(lambda: Verdict(ExitReason.CONFIDENT))

    def decide(self, *_: object) -> Verdict:
        return type(self).deed()


@pytest.mark.parametrize(
    ("deed", "error"),
    [
        (lambda: 1 / 0, ZeroDivisionError),
        (lambda: Verdict(ExitReason.NATURAL), PolicyFailed),
        (lambda: None, AttributeError),
    ],
    ids=["raises", "another's reason", "no verdict"],
)
@pytest.mark.parametrize("joined", ["faulty", "faulty+budget", "repetition+faulty"])
def test_a_policy_that_fails_ends_all_exits_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, deed: Callable[[], object], error: type[Exception], joined: str
) -> None:
    monkeypatch.setitem(policies.POLICIES, "faulty", Faulty)
    monkeypatch.setattr(Faulty, "deed", staticmethod(deed))
    script = Script(TWO_STEPS, confidences=sure_from(0))
    settings = replace(CONFIDENT, policy=joined, budget_tokens=4)
    for answer_now in (lambda tick: True, lambda tick: False):
        played = play(script, settings, answer_now=answer_now)
        assert (played.emitted, played.close) == (script.ids, None)
        assert (played.outcome.reason, played.outcome.policy_failed) == ("natural", True)
    controller = ExitController(settings, THINKING, thinking_open=True)
    controller.receive(Tokens([210, 211, 212], ["a", " Wait", ","]))
    controller.receive(ProbeAnswered(0, trial(0.5)))
    assert isinstance(controller.fault, error)


def test_a_policy_that_asks_nothing_may_fail_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(BudgetPolicy):
        def decide(self, *_: object) -> Verdict:
            raise KeyError

    monkeypatch.setitem(policies.POLICIES, "broken", Broken)
    settings = replace(CONFIDENT, policy="confidence+broken")
    script = Script(TWO_STEPS, confidences=sure_from(0))
    played = play(script, settings, max_tokens=50, answer_now=lambda tick: False)
    assert played.emitted == script.ids
    assert played.outcome.policy_failed


def test_a_guard_may_stop_a_decision() -> None:
    def guard(decide: Callable[[], Verdict]) -> Verdict:
        assert decide().reason == "confident"
        raise TimeoutError

    controller = ExitController(CONFIDENT, THINKING, thinking_open=True, guard=guard)
    controller.receive(Tokens([210, 211, 212], ["a", " Wait", ","]))
    assert controller.receive(ProbeAnswered(0, trial(0.99))) == [Emit(2)]
    assert isinstance(controller.fault, TimeoutError)
