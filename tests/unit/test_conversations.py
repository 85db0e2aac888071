"""Turns of one conversation share what it began with, and others do not."""

from typing import Any

import pytest

from service.savings.conversations import conversation_of

SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = {"role": "user", "content": "2+2?"}
REST = [{"role": "assistant", "content": "4"}, {"role": "user", "content": "and 3+3?"}]


def of(**body: Any) -> bytes:
    return conversation_of(body)


def test_later_turns_belong_to_the_first() -> None:
    first = of(model="m", messages=[SYSTEM, FIRST])
    assert first == of(messages=[SYSTEM, FIRST, *REST], model="m", temperature=0.3, stream=True)
    assert first != of(model="m", messages=[FIRST, *REST])
    assert first != of(model="m", messages=[SYSTEM, {"role": "user", "content": "2+3?"}])
    assert first != of(model="other", messages=[SYSTEM, FIRST])


def test_responses_and_messages_and_prompts() -> None:
    assert of(model="m", input=[FIRST]) == of(model="m", input=[FIRST, *REST])
    assert of(model="m", input="2+2?") != of(model="m", input="2+3?")
    assert of(prompt="2+2?") != of(prompt="2+3?")
    assert of(prompt=[[1, 2], [3]]) == of(prompt=[[1, 2], [3]], n=2)
    brief = of(system="Be brief.", messages=[FIRST])
    assert brief == of(system="Be brief.", messages=[FIRST, *REST])
    assert brief != of(system="Be long.", messages=[FIRST])


@pytest.mark.parametrize("messages", [[], [1, None], [{"content": "x"}], {"role": "user"}, None])
def test_odd_bodies_are_conversations_of_their_own(messages: Any) -> None:
    assert of(messages=messages) == of(messages=messages)
