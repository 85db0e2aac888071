"""Thinking that needs no start: what comes before its end is counted, bounded and exited alike."""

from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stepgrpo_core import ExitController, ExitReason, ExitSettings, State
from stepgrpo_core.control.boundaries import step_starts
from stepgrpo_core.control.events import Emit, Finished, FinishThinking, Tokens
from tests.support.core.scripted import END, EOS, START, THINKING, TOOL, Played, Script, play
from tests.support.core.streams import (
    MATCHER,
    answers_by,
    calm,
    can_be_built,
    exit_settings,
    limits,
    scripts,
)

THOUGHT = ["So", " 2", " Wait", ",", " 2", "\n", "again"]
ANSWER = ["</think>", "2"]
SIZES: list[Callable[[int], int]] = [lambda tick: 1, lambda tick: 3, lambda tick: 1000]


def budget(tokens: int, **fields: object) -> ExitSettings:
    return ExitSettings(policy="budget", budget_tokens=tokens, answer_reserve=0, **fields)  # type: ignore[arg-type]


def implied(words: list[str], settings: ExitSettings, **options: object) -> Played:
    return play(Script([*words, ""]), settings, thinking_implied=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", SIZES)
@pytest.mark.parametrize("before", [[], ["\n"], ["\n", " "]])
def test_it_is_counted_from_its_first_token(before: list[str], chunk: Callable[[int], int]) -> None:
    played = implied([*before, *THOUGHT, *ANSWER], ExitSettings(policy="none"), chunk=chunk)
    outcome = played.outcome
    assert (outcome.reason, outcome.steps) == (ExitReason.NATURAL, 2)
    assert outcome.reasoning_tokens == len(before) + len(THOUGHT)
    assert len(played.emitted) == len(before) + len(THOUGHT) + len(ANSWER) + 1


@pytest.mark.parametrize("chunk", SIZES)
@pytest.mark.parametrize("before", [[], ["\n"], ["\n", " ", "\n"]])
@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_its_budget_holds(before: list[str], tokens: int, chunk: Callable[[int], int]) -> None:
    played = implied([*before, *THOUGHT, *ANSWER], budget(tokens), chunk=chunk)
    assert played.outcome.reason is ExitReason.BUDGET
    assert tokens <= played.outcome.reasoning_tokens - 1 <= tokens + 2  # 1 is of the closing
    assert played.close is not None
    assert played.emitted[played.close.position :][:3] == [100, END, 101]


def test_a_policy_that_asks_exits_it() -> None:
    script = Script([*THOUGHT, *ANSWER, ""], confidences=lambda position: 0.99)
    settings = ExitSettings(policy="confidence", min_interval=0, answer_reserve=0)
    played = play(script, settings, thinking_implied=True)
    assert played.outcome.reason is ExitReason.CONFIDENT
    assert [each.position for each in played.probes] == [2]  # before the marker


def test_it_is_closed_where_the_sequence_ends_in_it() -> None:
    played = implied(THOUGHT, budget(100))
    assert played.outcome.reason is ExitReason.EOS_IN_THINKING
    assert played.outcome.reasoning_tokens == len(THOUGHT) + 1
    free = implied(THOUGHT, ExitSettings(policy="none"))
    assert (free.outcome.reason, free.close) == (ExitReason.EOS_IN_THINKING, None)


def test_a_start_begins_it_as_ever() -> None:
    words = ["\n", "<think>", *THOUGHT, *ANSWER]
    for settings in (ExitSettings(policy="none"), budget(3)):
        outcomes = [
            play(Script([*words, ""]), settings, thinking_implied=each).outcome
            for each in (False, True)
        ]
        assert outcomes[0] == outcomes[1]


def test_an_end_at_once_is_an_empty_thought() -> None:
    outcome = implied(ANSWER, budget(3)).outcome
    assert (outcome.reason, outcome.reasoning_tokens) == (ExitReason.NATURAL, 0)


def test_a_tool_call_at_once_is_none() -> None:
    outcome = implied(["\n", "<tool_call>", "f", *ANSWER], budget(1)).outcome
    assert (outcome.reason, outcome.reasoning_tokens) == (ExitReason.NONE, 0)
    outcome = implied(["So", "<tool_call>", "f", *ANSWER], ExitSettings(policy="none")).outcome
    assert (outcome.reason, outcome.reasoning_tokens) == (ExitReason.NATURAL, 1)


def test_without_that_text_is_the_answer() -> None:
    outcome = play(Script([*THOUGHT, *ANSWER, ""]), budget(1)).outcome
    assert (outcome.reason, outcome.reasoning_tokens) == (ExitReason.NONE, 0)


def test_a_client_ends_it() -> None:
    controller = ExitController(ExitSettings(policy="none"), THINKING, thinking_implied=True)
    assert controller.receive(Tokens([7], ["\n"])) == [Emit(1)]  # nothing can cut it away
    controller.receive(FinishThinking())
    assert controller.receive(Tokens([8], ["So"]))[-1].closing_ids == THINKING.closing_ids  # type: ignore[union-attr]
    assert controller.state is State.ANSWERING


def test_what_was_held_comes_out_at_the_end_of_the_stream() -> None:
    controller = ExitController(budget(5), THINKING, thinking_implied=True)
    assert controller.receive(Tokens([7], ["\n"])) == []  # whether it is a thought is not known
    assert controller.receive(Tokens([EOS], [""]), Finished("eos")) == [Emit(2)]
    assert controller.outcome.reason is ExitReason.NONE


def test_its_tokens_are_of_no_answer() -> None:
    controller = ExitController(ExitSettings(policy="none"), THINKING, thinking_implied=True)
    assert not controller.would_answer(7, "So")
    assert controller.would_answer(TOOL, "<tool_call>")
    controller.receive(Tokens([7, END], ["So", "</think>"]))
    assert controller.would_answer(8, "2")


def test_the_first_end_wins_whatever_follows() -> None:
    words = ["<think>", "a", "</think>", "<think>", "b", "b", "</think>", "c"]
    for implies in (False, True):
        script = Script([*words, ""])
        played = play(script, budget(2), thinking_implied=implies)
        assert (played.outcome.reason, played.outcome.reasoning_tokens) == (ExitReason.NATURAL, 1)
        assert played.emitted == script.ids
        assert START in played.emitted[3:]


def test_its_steps_start_where_a_controller_cuts() -> None:
    script = Script(["\n", *THOUGHT, *ANSWER])
    marked = {"markers": ("Wait",), "thinking_implied": True}
    assert step_starts(script.ids, script.words, THINKING, **marked) == (3,)  # type: ignore[arg-type]
    tool = Script(["<tool_call>", *THOUGHT])
    assert step_starts(tool.ids, tool.words, THINKING, **marked) == ()  # type: ignore[arg-type]


def perhaps(words: list[str], settings: ExitSettings, **options: object) -> Played:
    """As `implied`, where nothing but the prompt says that it is thinking."""
    return implied(words, settings, may_answer=True, **options)


@pytest.mark.parametrize("policy", ["none", "budget"])
def test_without_an_end_it_may_have_been_the_answer(policy: str) -> None:
    settings = ExitSettings(policy=policy, budget_tokens=50, answer_reserve=0)
    played = perhaps(THOUGHT, settings)
    assert played.close is None
    outcome = played.outcome
    assert (outcome.reason, outcome.steps, outcome.reasoning_tokens) == (ExitReason.NONE, 0, 0)
    assert len(played.emitted) == len(THOUGHT) + 1


def test_with_an_end_it_was_a_thought() -> None:
    settings = ExitSettings(policy="none")
    assert (
        perhaps([*THOUGHT, *ANSWER], settings).outcome
        == implied([*THOUGHT, *ANSWER], settings).outcome
    )
    assert perhaps(THOUGHT, budget(2)).outcome == implied(THOUGHT, budget(2)).outcome


def test_a_start_tells_it_from_an_answer() -> None:
    outcome = perhaps(["<think>", *THOUGHT], budget(50)).outcome
    assert outcome.reason is ExitReason.EOS_IN_THINKING


def test_what_may_be_an_answer_is_one_to_stop_strings() -> None:
    controller = ExitController(
        ExitSettings(policy="none"), THINKING, thinking_implied=True, may_answer=True
    )
    assert controller.would_answer(7, "So")
    assert not controller.would_answer(8, "\n")
    assert not controller.would_answer(END, "</think>")
    controller.receive(Tokens([7], ["So"]))
    assert controller.would_answer(8, "\n")
    assert not controller.would_answer(END, "</think>")
    controller.receive(Finished("stop"))
    assert controller.outcome.reasoning_tokens == 0


def is_thought(words: Sequence[str]) -> bool:
    """Whether the first visible word is neither a start nor a tool call, and there is one."""
    visible = next((each for each in words if each.strip()), "<think>")
    return visible not in ("<think>", "<tool_call>")


@calm
@given(scripts, exit_settings, limits, st.integers(0, 99), st.randoms())
def test_it_goes_as_a_thought_that_the_prompt_has_opened(
    script: Script, asked: ExitSettings, max_tokens: int, seed: int, random: Random
) -> None:
    assume(can_be_built(asked) and is_thought(script.words[:max_tokens]))
    script.answers = answers_by(seed)
    opened, unopened = (
        play(
            script,
            asked,
            chunk=lambda tick: random.randint(1, 6),
            max_tokens=max_tokens,
            matcher=MATCHER,
            **{how: True},  # type: ignore[arg-type]
        )
        for how in ("thinking_open", "thinking_implied")
    )
    assert unopened.emitted == opened.emitted
    assert unopened.outcome.reason is opened.outcome.reason
    assert unopened.outcome.steps == opened.outcome.steps
    assert unopened.outcome.reasoning_tokens == opened.outcome.reasoning_tokens
