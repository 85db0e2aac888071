"""The exit controller: what it emits, when it asks, and that timing changes nothing."""

from dataclasses import replace

import pytest

from stepgrpo_core import (
    CloseThinking,
    Emit,
    ExitController,
    ExitReason,
    ExitSettings,
    Finished,
    ProbeAnswered,
    StartProbe,
    State,
    Tokens,
)
from stepgrpo_core.control.events import Cause
from stepgrpo_core.control.states import REASONS, TRANSITIONS, Signal
from tests.support.core.cases import STEP_CASES, StepCase
from tests.support.core.scripted import (
    CONFIDENT,
    END,
    ONE_STEP,
    THINKING,
    TWO_STEPS,
    Script,
    play,
    sure_from,
    trial,
)

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
def test_reasons_without_an_exit(
    words: list[str], cause: Cause, expected: tuple[str, int, int]
) -> None:
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
    assert outcome.probes == 1
    assert outcome.confidence == pytest.approx(0.99)


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
