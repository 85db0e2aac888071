"""Where a prompt leaves off: before a thought, inside one, or behind one.

Thinking needs no start where a reasoning model's turn begins and its template has not closed the
thinking: after some prompts such models leave the start out, and what they write before the end is
their thinking all the same.
"""

import enum
from collections.abc import Sequence
from typing import Any

from stepgrpo_core.control.events import ThinkingFormat
from stepgrpo_core.families.table import Family
from stepgrpo_core.families.templates import render_of, source_of
from stepgrpo_core.families.thinking import continues_thinking, opens_in_thinking

__all__ = ["PromptState", "ends_with_header", "prompt_state", "turn_header"]


class PromptState(enum.Enum):
    """Where the last message of a prompt leaves off."""

    BEFORE = "before"
    """No thinking has begun in it."""
    OPENED = "opened"
    """It ends in the start of thinking."""
    INSIDE = "inside"
    """In a thought that has begun: its caller's."""
    CLOSED = "closed"
    """Behind the end of a thought."""

    @property
    def open(self) -> bool:
        """Whether what follows is thinking."""
        return self in (PromptState.OPENED, PromptState.INSIDE)


def prompt_state(
    tokenizer: Any,
    thinking: ThinkingFormat,
    prompt_ids: Sequence[int],
    special: frozenset[int],
    turn: Sequence[int] = (),
) -> PromptState:
    """Where a prompt leaves off. `special` tokens stand between messages; a prompt that ends in
    `turn` begins one."""
    if turn and ends_with_header(prompt_ids, turn):
        return PromptState.BEFORE
    if opens_in_thinking(tokenizer, thinking, prompt_ids):
        return PromptState.OPENED
    if continues_thinking(tokenizer, thinking, prompt_ids, special):
        return PromptState.INSIDE
    closed = _closed_by_text if thinking.end_text else _closed
    return (
        PromptState.CLOSED
        if closed(tokenizer, thinking, prompt_ids, special)
        else PromptState.BEFORE
    )


def _closed(
    _: Any, thinking: ThinkingFormat, prompt_ids: Sequence[int], special: frozenset[int]
) -> bool:
    if thinking.before_start:  # its end is the end of any message
        return False
    end = (*thinking.before_end, thinking.end_id)
    for place in range(len(prompt_ids), 0, -1):
        if tuple(prompt_ids[max(place - len(end), 0) : place]) == end:
            return True
        if prompt_ids[place - 1] in special or prompt_ids[place - 1] == thinking.start_id:
            return False
    return False


def _closed_by_text(
    tokenizer: Any, thinking: ThinkingFormat, prompt_ids: Sequence[int], special: frozenset[int]
) -> bool:
    begin = max((at for at, token in enumerate(prompt_ids) if token in special), default=-1) + 1
    text: str = tokenizer.decode(list(prompt_ids[begin:]))
    _, closed, after = text.rpartition(thinking.end_text.strip())
    return bool(closed) and thinking.start_text.strip() not in after


def ends_with_header(prompt_ids: Sequence[int], turn: Sequence[int]) -> bool:
    """Whether a prompt ends in what begins an assistant's message."""
    return tuple(prompt_ids[-len(turn) :]) == tuple(turn)


def turn_header(
    tokenizer: Any, family: Family, chat_template: str | None = None
) -> tuple[int, ...]:
    """The tokens with which the tokenizer's chat template, or `chat_template` in its place, begins
    an assistant's message, without marks of thinking.

    Empty where no template writes the end of the family's thinking, since its model may not think,
    where the template fails, and where several tokens start the thinking: those tell it from other
    messages, so it does need them.
    """
    render, source = render_of(tokenizer, chat_template), source_of(tokenizer, chat_template)
    single = tokenizer.backend_tokenizer.token_to_id(family.start) is not None
    if render is None or source is None or not single or family.end not in source:
        return ()
    hello = [{"role": "user", "content": "Hello"}]
    said, asked = (render(hello, add_generation_prompt=asks) for asks in (False, True))
    if said is None or asked is None or not asked.startswith(said):
        return ()
    header = asked[len(said) :].split(family.start)[0].split(family.end)[0]
    return tuple(tokenizer.encode(header, add_special_tokens=False))
