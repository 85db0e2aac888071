"""The exit controller: what it emits, when it asks, and that timing changes nothing."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from stepgrpo_core import (
    CancelProbe,
    CloseThinking,
    Emit,
    ExitController,
    ExitReason,
    ExitSettings,
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
from stepgrpo_core.policies import ConfidencePolicy, Verdict
from stepgrpo_core.states import REASONS, TRANSITIONS, Signal
from tests.cases import STEP_CASES, StepCase
from tests.scripted import END, THINKING, Script, play, trial

CONFIDENT = ExitSettings(policy="confidence", min_interval=0, answer_reserve=0)
ONE_STEP = ["<think>", "a", " b", "\n", "Wait", ",", " c", "</think>", "d", ""]
TWO_STEPS = ["<think>", "a", " b", " Wait", " c", " Wait", " d", "</think>", "e", ""]


def sure_from(position: int):
    return lambda at: 0.99 if at >= position else 0.1


# The tables.


def test_every_path_to_done_settles_exactly_one_reason() -> None:
    def paths(state: State) -> list[list[tuple[State, Signal]]]:
        if state is State.DONE:
            return [[]]
        return [
            [(state, signal), *rest]
            for signal, after in TRANSITIONS[state].items()
            for rest in paths(after)
        ]

    for path in paths(State.PRELUDE) + paths(State.THINKING):
        assert sum(step in REASONS for step in path) == 1


def test_the_tables_name_every_state_and_reason() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {s for state, s in REASONS if s in TRANSITIONS[state]} == {s for _, s in REASONS}
    settled = frozenset().union(*REASONS.values())
    assert settled == set(ExitReason)


# Without an exit.


def test_policy_none_passes_everything_at_once() -> None:
    controller = ExitController(ExitSettings(), THINKING)
    for token, text in zip(Script(TWO_STEPS).ids, TWO_STEPS, strict=True):
        assert controller.receive(Tokens([token], [text])) == [Emit(1)]
    controller.receive(Finished("eos"))
    outcome = controller.outcome
    assert (outcome.reason, outcome.steps, outcome.reasoning_tokens) == ("natural", 3, 6)
    assert (outcome.probes, outcome.confidence) == (0, None)


@pytest.mark.parametrize("case", STEP_CASES, ids=lambda case: repr(case.text))
def test_it_counts_steps_as_the_segmenter_does(case: StepCase) -> None:
    controller = ExitController(ExitSettings(markers=case.markers), THINKING, thinking_open=True)
    controller.receive(Tokens(range(200, 200 + len(case.text)), list(case.text)))
    controller.receive(Tokens([END], ["</think>"]))
    controller.receive(Finished("eos"))
    assert controller.outcome.steps == case.steps


@pytest.mark.parametrize(
    ("words", "cause", "expected"),
    [
        (["a", " Wait", ",", ""], "eos", ("none", 0, 0)),  # no thinking: markers mean nothing
        (["\n", "<think>", "a", "</think>", "b", ""], "eos", ("natural", 1, 1)),
        (["a", "<think>", "b", ""], "eos", ("none", 0, 0)),  # <think> in an answer is text
        (["<think>", "a", "</think>", "b", "</think>", "c"], "eos", ("natural", 1, 1)),
        (["<think>", "a", " Wait", ","], "length", ("length", 2, 3)),
        (["<think>", "a", " Wait"], "stop", ("none", 2, 2)),  # cut by a stop string
        (["<think>", "a"], "abort", ("client", 1, 1)),
        ([""], "eos", ("none", 0, 0)),
        ([" "], "length", ("length", 0, 0)),
        (["<think>", "</think>", "5"], "eos", ("natural", 1, 0)),
        (["<think>", "a", "<tool_call>", "b", ""], "eos", ("natural", 1, 1)),
        (["<tool_call>", "a", " Wait", ""], "eos", ("none", 0, 0)),
    ],
)
def test_reasons_without_an_exit(words, cause, expected) -> None:
    for settings in (ExitSettings(), CONFIDENT):
        played = play(Script(words, cause=cause), settings)
        assert (
            played.outcome.reason,
            played.outcome.steps,
            played.outcome.reasoning_tokens,
        ) == expected
        assert played.emitted == Script(words).ids


def test_policy_none_leaves_a_completion_alone_that_ends_in_its_thinking() -> None:
    script = Script(["<think>", "a", ""])
    for settings in (ExitSettings(), replace(CONFIDENT, close_on_eos=False)):
        played = play(script, settings)
        assert (played.emitted, played.close) == (script.ids, None)
        assert (played.outcome.reason, played.outcome.reasoning_tokens) == ("eos_in_thinking", 2)


@pytest.mark.parametrize("policy", ["confidence", "budget", "repetition", "budget+confidence"])
def test_nothing_is_closed_inside_a_tool_call(policy: str) -> None:
    call = ["<tool_call>", "{", " Wait", ",", "\n", *[" Wait", "x"] * 4, "}", "</think>", "a", ""]
    settings = replace(CONFIDENT, policy=policy, budget_tokens=2, max_steps=2, repetition_chunks=2)
    for words in (["<think>", "a", *call], ["<think>", "a", "</think>", *call], call):
        played = play(Script(words, confidences=sure_from(0)), settings)
        assert played.close is None
        assert played.emitted == Script(words).ids
        wished = play(Script(words), settings, wish_at=words.index("{") + 1)
        assert wished.close is None
    before = ["<think>", "a", " Wait", ",", "a", "b", "c", *call]
    played = play(Script(before, confidences=sure_from(0)), settings, answer_now=lambda tick: False)
    assert played.close is None or played.close.position <= before.index("<tool_call>")


def test_what_is_part_of_the_answer() -> None:
    def answers(words: list[str], then: str) -> bool:
        script = Script([*words, then])
        controller = ExitController(ExitSettings(), THINKING)
        for token, text in zip(script.ids[:-1], words, strict=True):
            controller.receive(Tokens([token], [text]))
        return controller.would_answer(script.ids[-1], then)

    assert answers([], "a")
    assert answers([], "<tool_call>")
    assert not answers([], "\n")
    assert not answers(["\n"], "<think>")
    assert not answers(["<think>"], "a")
    assert not answers(["<think>", "a"], "</think>")
    assert answers(["<think>", "a"], "<tool_call>")
    assert answers(["<think>", "a", "</think>"], "\n\n")


def test_thinking_opened_by_the_prompt() -> None:
    played = play(Script(["a", " Wait", " b", "</think>", "c"]), ExitSettings(), thinking_open=True)
    assert (played.outcome.reason, played.outcome.reasoning_tokens) == ("natural", 3)


# With an exit.


def test_the_cut_is_before_the_marker_and_the_marker_is_not_kept() -> None:
    script = Script(ONE_STEP, confidences=sure_from(0))
    played = play(script, CONFIDENT)
    assert played.close == CloseThinking(4, THINKING.closing_ids, ExitReason.CONFIDENT)
    assert played.emitted == [*script.ids[:4], *THINKING.closing_ids, *script.answer]
    outcome = played.outcome
    assert (outcome.reason, outcome.steps, outcome.reasoning_tokens) == ("confident", 1, 4)
    assert (outcome.probes, outcome.confidence) == (1, pytest.approx(0.99))


def test_the_threshold_is_strict() -> None:
    at = replace(CONFIDENT, threshold=0.5)
    assert play(Script(ONE_STEP, confidences=lambda _: 0.5), at).outcome.reason == "natural"
    assert play(Script(ONE_STEP, confidences=lambda _: 0.51), at).outcome.reason == "confident"


def test_a_trial_that_does_not_close_the_thinking_is_no_evidence() -> None:
    controller = ExitController(CONFIDENT, THINKING)
    controller.receive(Tokens(Script(ONE_STEP).ids[:6], ONE_STEP[:6]))
    controller.receive(ProbeAnswered(0, trial(1.0, ended=False)))
    controller.receive(Finished("length"))
    assert (controller.outcome.reason, controller.outcome.confidence) == ("length", 0.0)


def test_text_that_may_become_a_marker_is_held_back_and_released() -> None:
    controller = ExitController(CONFIDENT, THINKING, thinking_open=True)
    assert controller.receive(Tokens([210, 211], ["a ", "Wa"])) == [Emit(1)]
    assert controller.receive(Tokens([212], ["it"])) == []
    assert controller.receive(Tokens([213], ["ing"])) == [Emit(3)]


def test_tokens_from_the_marker_on_are_held_until_the_probe_answers() -> None:
    controller = ExitController(CONFIDENT, THINKING, thinking_open=True)
    commands = controller.receive(Tokens([210, 211, 212], ["a", " Wait", ","]))
    assert [type(c) for c in commands] == [StartProbe, Emit]
    assert commands[1] == Emit(1)
    assert controller.receive(Tokens([213, 214], [" b", " c"])) == []
    assert controller.receive(ProbeAnswered(0, trial(0.1))) == [Emit(4)]


def test_a_character_split_over_tokens_is_cut_whole() -> None:
    settings = replace(CONFIDENT, markers=("等等",))
    controller = ExitController(settings, THINKING, thinking_open=True)
    assert controller.receive(Tokens([210, 211, 212], ["a", "", ""])) == [Emit(1)]
    assert controller.receive(Tokens([213, 214], ["等", "等"])) == []
    start, *_ = controller.receive(Tokens([215], ["b"]))
    assert isinstance(start, StartProbe)
    assert start.position == 1


def test_a_marker_inside_a_token_cuts_the_whole_token() -> None:
    controller = ExitController(CONFIDENT, THINKING, thinking_open=True)
    start, *_ = controller.receive(Tokens([210, 211, 212], ["a", ".Wait", ","]))
    assert isinstance(start, StartProbe)
    assert start.position == 1


def test_bytes_before_the_marker_in_its_own_character_are_cut_with_it() -> None:
    controller = ExitController(CONFIDENT, THINKING, thinking_open=True)
    assert controller.receive(Tokens([210, 211], ["a", ""])) == [Emit(1)]
    start, *_ = controller.receive(Tokens([212, 213], ["é.Wait", ","]))
    assert isinstance(start, StartProbe)
    assert start.position == 1


def test_a_decline_and_an_exit_that_fall_due_together() -> None:
    controller = ExitController(CONFIDENT, THINKING, thinking_open=True)
    controller.receive(Tokens(range(210, 216), ["a", " Wait", ",", " b", " Wait", ","]))
    assert controller.receive(ProbeAnswered(1, trial(0.99))) == []
    assert controller.receive(ProbeAnswered(0, trial(0.1))) == [
        Emit(3),
        CloseThinking(4, THINKING.closing_ids, ExitReason.CONFIDENT),
    ]


def test_the_earliest_confident_position_wins_whatever_answers_first() -> None:
    script = Script(TWO_STEPS, confidences=lambda _: 0.99)
    late = play(script, CONFIDENT, answer_now=lambda tick: False)
    assert late.close is not None
    assert late.close.position == 3
    assert late.most_in_flight == 2
    assert late.outcome.steps == 1


def test_a_probe_started_before_the_natural_end_is_decided_before_it() -> None:
    script = Script(ONE_STEP, confidences=sure_from(0))
    late = play(script, CONFIDENT, answer_now=lambda tick: False)
    assert late.emitted == play(script, CONFIDENT).emitted
    assert late.outcome == play(script, CONFIDENT).outcome


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
    answers = [ProbeAnswered(0, trial(0.5)), ProbeAnswered(1, None), ProbeRefused(2)]
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
    assert controller.state is State.THINKING  # the probe decides first
    controller.receive(Finished("abort"))
    assert controller.state is State.DONE


# The contract.


def test_what_the_state_does_not_allow_is_a_violation() -> None:
    controller = ExitController(CONFIDENT, THINKING)
    with pytest.raises(ProtocolViolation, match="never started"):
        controller.receive(ProbeAnswered(0, None))
    with pytest.raises(ProtocolViolation, match="never started"):
        controller.receive(ProbeRefused(0))
    with pytest.raises(ProtocolViolation, match="PRELUDE"):
        _ = controller.outcome
    controller.receive(Finished("eos"))
    for event in (Tokens([1], ["a"]), Finished("eos"), Finished("abort")):
        with pytest.raises(ProtocolViolation):
            controller.receive(event)


class Faulty(ConfidencePolicy):
    """Exits at the first trial, or fails there."""

    deed: Callable[[], Verdict] = staticmethod(lambda: Verdict(ExitReason.CONFIDENT))

    def decide(self, *_):
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
    monkeypatch, deed, error, joined: str
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


def test_a_policy_that_asks_nothing_may_fail_too(monkeypatch) -> None:
    class Broken(policies.POLICIES["budget"]):
        def decide(self, *_):
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
