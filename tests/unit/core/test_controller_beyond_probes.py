"""The controller beyond trial answers: ends in the thinking, clients' wishes, limits, load."""

import re
import time
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
    FinishThinking,
    ProbeAnswered,
    ProtocolViolation,
    StartProbe,
    State,
    Tokens,
    policies,
)
from stepgrpo_core.control.events import Cause
from stepgrpo_core.policies import (
    Boundary,
    BoundaryKind,
    Distribution,
    Induce,
    Judge,
    Needs,
    Reply,
    Verdict,
)
from tests.support.core.scripted import END, THINKING, Script, play, trial

CONFIDENT = ExitSettings(policy="confidence", min_interval=0, answer_reserve=0)
BUDGET = ExitSettings(policy="budget", budget_tokens=100, answer_reserve=0)
CLOSING = list(THINKING.closing_ids)


def open_controller(settings: ExitSettings, max_tokens: int | None = None) -> ExitController:
    return ExitController(settings, THINKING, thinking_open=True, max_tokens=max_tokens)


# The end of the sequence inside the thinking.


def test_a_completion_that_ends_in_its_thinking_is_closed_and_answered() -> None:
    script = Script(["<think>", "a", " b", ""])
    for settings in (CONFIDENT, BUDGET):
        played = play(script, settings, chunk=lambda tick: 2)
        assert played.emitted == [*script.ids[:3], *CLOSING, *script.answer]
        assert played.outcome.reason is ExitReason.EOS_IN_THINKING
        assert (played.outcome.steps, played.outcome.reasoning_tokens) == (1, 3)


def test_the_token_that_ended_the_sequence_is_never_emitted() -> None:
    controller = open_controller(CONFIDENT)
    controller.receive(Tokens([210, 211, 212], ["a", " Wait", ","]))
    assert controller.receive(Tokens([213, 3], [" b", ""]), Finished("eos")) == []
    assert controller.receive(ProbeAnswered(0, trial(0.1))) == [
        Emit(3),
        CloseThinking(4, THINKING.closing_ids, ExitReason.EOS_IN_THINKING),
    ]


def test_a_trial_that_fires_wins_over_the_end() -> None:
    controller = open_controller(CONFIDENT)
    controller.receive(Tokens([210, 211, 212, 3], ["a", " Wait", ",", ""]), Finished("eos"))
    controller.receive(ProbeAnswered(0, trial(0.99)))
    assert controller.reason is ExitReason.CONFIDENT


@pytest.mark.parametrize(("max_tokens", "closed"), [(1 + 3 + 1, True), (1 + 3, False)])
def test_an_end_in_the_thinking_is_closed_if_one_token_of_answer_fits(
    max_tokens: int, closed: bool
) -> None:
    script = Script(["a", ""], answer=[50])
    settings = replace(CONFIDENT, answer_reserve=64)
    played = play(script, settings, max_tokens=max_tokens, thinking_open=True)
    assert (played.close is not None) is closed
    assert played.outcome.reason is ExitReason.EOS_IN_THINKING
    assert played.emitted == ([script.ids[0], *CLOSING, 50] if closed else script.ids)


def test_an_end_that_is_told_after_its_token_went_out_is_not_closed() -> None:
    controller = open_controller(replace(CONFIDENT, policy="repetition"))
    assert controller.receive(Tokens([210, 3], ["a", "<eos>"])) == [Emit(2)]
    assert controller.receive(Finished("eos")) == []
    assert controller.outcome.reason is ExitReason.EOS_IN_THINKING


def test_shadow_mode_leaves_the_end_alone() -> None:
    script = Script(["<think>", "a", ""])
    assert play(script, replace(CONFIDENT, shadow=True)).emitted == script.ids


# The client wants the answer.


def test_a_wish_closes_after_the_last_complete_token() -> None:
    controller = open_controller(CONFIDENT)
    controller.receive(Tokens([210, 211, 212, 213], ["a", " Wait", ",", ""]))
    assert controller.receive(FinishThinking()) == [
        CancelProbe(0),
        Emit(2),
        CloseThinking(3, THINKING.closing_ids, ExitReason.CLIENT),
    ]
    controller.receive(Tokens([50], ["5"]), Finished("eos"))
    outcome = controller.outcome
    assert (outcome.reason, outcome.steps, outcome.reasoning_tokens) == ("client", 2, 4)


def test_a_wish_waits_for_the_character_and_for_the_thinking() -> None:
    controller = open_controller(ExitSettings())
    assert controller.receive(FinishThinking()) == []
    assert controller.receive(Tokens([210, 211], ["a", ""]))[-1] == CloseThinking(
        1, THINKING.closing_ids, ExitReason.CLIENT
    )
    controller = ExitController(ExitSettings(), THINKING)
    assert controller.receive(FinishThinking()) == []
    controller.receive(Tokens([1], ["<think>"]))
    assert controller.state is State.ANSWERING
    controller = open_controller(ExitSettings())
    controller.receive(Tokens([210, 211], ["a", ""]))  # policy none: already emitted
    assert controller.receive(FinishThinking()) == []
    assert controller.receive(Tokens([212], ["é"]))[-1] == CloseThinking(
        3, THINKING.closing_ids, ExitReason.CLIENT
    )


def test_a_wish_counts_in_shadow_mode_and_without_a_policy() -> None:
    for settings in (ExitSettings(), replace(CONFIDENT, shadow=True)):
        played = play(Script(["<think>", *["x"] * 20, "</think>", ""]), settings, wish_at=5)
        assert played.outcome.reason is ExitReason.CLIENT


def test_a_wish_changes_nothing_where_no_thinking_is_going_on() -> None:
    script = Script(["<think>", "a", "</think>", "b", "c", ""])
    for tick in (4, 5, 6):
        assert play(script, CONFIDENT, wish_at=tick).emitted == script.ids
    controller = open_controller(CONFIDENT, max_tokens=4)  # no room to close
    controller.receive(Tokens([210], ["a"]))
    assert controller.receive(FinishThinking()) == []
    controller.receive(Tokens([211, 212, 213], ["b", "c", "d"]), Finished("length"))
    assert controller.outcome.reason is ExitReason.LENGTH
    assert controller.receive(FinishThinking()) == []


# Budgets.


def test_thinking_does_not_eat_the_answers_reserve() -> None:
    script = Script(["<think>", *["x"] * 500], answer=[50] * 500)
    settings = ExitSettings(policy="budget", answer_reserve=64)
    for max_tokens in range(80, 200, 7):
        played = play(script, settings, max_tokens=max_tokens)
        assert played.outcome.reason is ExitReason.BUDGET
        assert len(played.emitted) == max_tokens
        assert played.emitted.count(50) >= 64


def test_a_budget_above_the_room_yields_to_it_and_one_of_nothing_closes_at_once() -> None:
    script = Script(["<think>", *["x"] * 100], answer=[50])
    played = play(script, BUDGET, max_tokens=60)
    assert played.outcome.reason is ExitReason.BUDGET
    assert play(script, replace(BUDGET, budget_tokens=0)).outcome.reasoning_tokens == 2


def test_a_budget_is_taken_even_where_the_thinking_closes_within_an_undecided_marker() -> None:
    settings = replace(CONFIDENT, policy="confidence+budget", budget_tokens=2, max_probes=1)
    script = Script(["<think>", "a", " Wa", "</think>", "b"])
    assert play(script, settings).outcome.reason is ExitReason.BUDGET
    settings = replace(settings, max_probes=0)
    assert play(script, settings).outcome.reason is ExitReason.BUDGET


@pytest.mark.parametrize(
    ("cause", "reason"),
    [("length", "budget"), ("stop", "budget"), ("eos", "budget"), ("abort", "client")],
)
def test_a_budget_spent_within_an_undecided_marker_counts_unless_the_client_left(
    cause: Cause, reason: str
) -> None:
    settings = replace(CONFIDENT, policy="confidence+budget", budget_tokens=2)
    script = Script(["<think>", "a", " Wa"], cause=cause)
    assert play(script, settings).outcome.reason == reason


# What is held back.


def test_policies_that_ask_nothing_hold_nothing_but_unfinished_characters() -> None:
    controller = open_controller(BUDGET)
    assert controller.receive(Tokens([210, 211], ["a. ", " Wai"])) == [Emit(2)]
    assert controller.receive(Tokens([212], [""])) == []
    assert controller.receive(Tokens([213], ["é"])) == [Emit(2)]


def test_a_sentence_is_held_no_longer_than_the_next_character() -> None:
    settings = ExitSettings(policy="margin", min_interval=0, answer_reserve=0)
    controller = open_controller(settings)
    assert controller.receive(Tokens([210, 211], ["a", "."])) == [Emit(2)]
    assert controller.receive(Tokens([212], [""])) == []  # may be white space
    assert controller.receive(Tokens([213], ["é"])) == [Emit(2)]
    controller.receive(Tokens([214], ["."]))
    start, *_ = controller.receive(Tokens([215], [" b"]))
    assert isinstance(start, StartProbe)
    assert start.position == 5


# Questions.


def test_an_answer_of_the_wrong_kind_is_a_violation() -> None:
    controller = open_controller(CONFIDENT)
    controller.receive(Tokens([210, 211, 212], ["a", " Wait", ","]))
    with pytest.raises(ProtocolViolation, match="probe expects InducedAnswer, not Reply"):
        controller.receive(ProbeAnswered(0, Reply("100")))


def test_one_policys_failures_do_not_silence_another() -> None:
    words = ["<think>", *["x", " Wait", ","] * 30, "</think>", ""]
    settings = replace(CONFIDENT, policy="sufficiency+confidence", max_probes=10)
    script = Script(
        words, answers=lambda probe: None if isinstance(probe.spec, Judge) else trial(0.1)
    )
    played = play(script, settings)
    kinds = [type(each.spec) for each in played.probes]
    assert kinds.count(Induce) == 10
    assert played.outcome.failed_probes == kinds.count(Judge) == 2  # 64 tokens apart


def test_the_third_failure_in_a_row_takes_back_what_was_asked_since() -> None:
    controller = open_controller(replace(CONFIDENT, policy="confidence+budget"))
    texts = ["x", " Wait", ","] * 5
    controller.receive(Tokens(range(210, 210 + len(texts)), texts))
    commands = [c for n in range(3) for c in controller.receive(ProbeAnswered(n, None))]
    assert [c for c in commands if isinstance(c, CancelProbe)] == [CancelProbe(3), CancelProbe(4)]
    assert controller.receive(ProbeAnswered(4, trial(0.99))) == []


def test_a_storm_of_markers_costs_no_more_than_the_caps_allow() -> None:
    words = ["<think>", *[" Wait", ","] * 1000, "</think>", ""]
    free = replace(CONFIDENT, max_probes=1000, probe_max_tokens=20)
    share = play(Script(words), replace(free, probe_share=0.15)).probes
    assert len(share) == (2000 - 2) * 0.15 // 20
    slower = play(Script(words), replace(free, min_interval=2, probe_backoff=2.0)).probes
    assert [each.position for each in slower] == [1 + 2**n for n in range(1, 11)]
    assert len(play(Script(words), replace(free, max_probes=16, min_interval=64)).probes) == 16


def test_a_policy_that_asks_in_vain_lets_the_others_act() -> None:
    settings = replace(CONFIDENT, policy="verifier+budget", budget_tokens=5)
    words = ["<think>", *["x", "\n\n"] * 10, "</think>", ""]
    played = play(Script(words, answers=lambda probe: None), settings)
    assert (played.outcome.reason, played.outcome.failed_probes) == (ExitReason.BUDGET, 2)


# How to add one.


def test_a_policy_is_added_by_a_class_and_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    class Certain:
        """Exits at a line end where the model is nearly certain of its next token."""

        def __init__(self, settings: ExitSettings) -> None:
            self.needs = Needs(
                frozenset({BoundaryKind.LINE}),
                settings.min_tokens,
                policies.NextToken("", 1),
                settings.min_interval,
            )

        def decide(self, boundary: Boundary, answer: policies.Answer | None) -> Verdict:
            assert isinstance(answer, Distribution)
            certain = answer.logprobs[0] > -0.01
            return Verdict(ExitReason.MARGIN if certain and boundary.steps > 1 else None)

    monkeypatch.setitem(policies.POLICIES, "certain", Certain)
    script = Script(
        ["<think>", "a", "\n", " Wait", " b", "\n", "c", "</think>", ""],
        answers=lambda probe: Distribution((-0.001,), None),
    )
    for name in ("certain", "certain+budget", "repetition+certain"):
        played = play(script, replace(CONFIDENT, policy=name))
        assert played.close == CloseThinking(6, THINKING.closing_ids, ExitReason.MARGIN)
        assert [each.position for each in played.probes] == [3, 6]


# Load.


def seconds(settings: ExitSettings, texts: list[str]) -> float:
    best = float("inf")
    for _ in range(2):
        controller = ExitController(
            settings, THINKING, thinking_open=True, matcher=re.compile("never")
        )
        begin = time.process_time()
        for start in range(0, len(texts), 8):
            chunk = texts[start : start + 8]
            controller.receive(Tokens([300] * len(chunk), chunk))
        controller.receive(Tokens([END], ["</think>"]), Finished("eos"))
        best = min(best, time.process_time() - begin)
    return best


@pytest.mark.parametrize(
    "hostile",
    [["."], [". "], ["\n"], [" Wai"], [""], ['."'], ["Wait", " ", "no", ". "], ["x" * 50]],
    ids=repr,
)
def test_streaming_text_costs_linear_time(hostile: list[str]) -> None:
    """Four times the text takes about four times as long; quadratic work would take sixteen."""
    settings = ExitSettings(policy="confidence+margin+budget+pattern+repetition", shadow=True)
    short, long = (seconds(settings, hostile * (n // len(hostile))) for n in (1_000, 4_000))
    assert long < 9 * short + 0.05
