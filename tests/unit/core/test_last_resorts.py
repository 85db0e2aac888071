"""Values that cannot be used, and prompts that few templates write."""

from types import SimpleNamespace
from typing import Any

import pytest

from stepgrpo_core import ExitSettings, InvalidSetting, PolicyFailed
from stepgrpo_core.control.events import ThinkingFormat
from stepgrpo_core.control.probing import build_probe
from stepgrpo_core.families.prompts import PromptState, prompt_state
from stepgrpo_core.families.table import FamilyChoice
from stepgrpo_core.policies import POLICIES, Judge, build_policy

START, END, OPENS, TURN = 1, 2, 3, 9
WORDS = {START: "<t>", END: "</t>", OPENS: "<m>", TURN: "", 5: " so", 6: " [end]", 7: " [begin]"}


def decode(ids: list[int]) -> str:
    return "".join(WORDS[each] for each in ids)


TOKENIZER = SimpleNamespace(decode=lambda ids, **_: decode(ids))


def standing(thinking: ThinkingFormat, prompt: list[int]) -> PromptState:
    return prompt_state(TOKENIZER, thinking, prompt, frozenset({TURN}))


def test_the_end_of_any_message_closes_no_thought() -> None:
    thinking = ThinkingFormat(START, END, (), before_start=(OPENS,))
    assert standing(thinking, [TURN, 5, END]) is PromptState.BEFORE


def test_a_thought_that_text_closed_is_closed_and_a_new_one_is_not() -> None:
    thinking = ThinkingFormat(-1, -2, (), start_text="[begin]", end_text="[end]")
    assert standing(thinking, [TURN, 7, 5, 6]) is PromptState.CLOSED
    assert standing(thinking, [TURN, 7, 5, 6, TURN, 5]) is PromptState.BEFORE


def test_what_follows_an_opened_or_continued_thought_is_thinking() -> None:
    assert {each for each in PromptState if each.open} == {PromptState.OPENED, PromptState.INSIDE}


def test_no_driver_can_put_a_question_to_a_judge_without_a_chat_template() -> None:
    judge = Judge("is this", "enough", "?", max_tokens=1)
    writer: Any = SimpleNamespace(chat=None, decode=decode)
    assert build_probe(judge, [], [], writer) is None


def test_a_family_that_is_not_known_is_named_with_those_that_are() -> None:
    with pytest.raises(InvalidSetting, match="qwen3"):
        FamilyChoice("no-such-family")


def test_a_description_that_cannot_be_read_is_named() -> None:
    with pytest.raises(InvalidSetting, match="families"):
        FamilyChoice(described={"mine": {"start": 3}})


def test_a_policy_that_cannot_be_built_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: ExitSettings) -> Any:
        raise ArithmeticError

    monkeypatch.setitem(POLICIES, "margin", broken)
    with pytest.raises(PolicyFailed, match="margin cannot be built: ArithmeticError"):
        build_policy(ExitSettings(policy="margin"))
