"""State of the thinking at the end of a prompt: not begun, open, or closed.

At the beginning of a reasoning model's turn thinking needs no start, unless the template closed it:
after some prompts such models omit the start, and all they write before the end is thinking.
"""

import enum
from collections.abc import Sequence
from typing import Any

from stepgrpo_core.control.events import ThinkingFormat
from stepgrpo_core.families.table import Family
from stepgrpo_core.families.templates import render_of, source_of
from stepgrpo_core.families.thinking import continues_thinking, last_turn, opens_in_thinking

__all__ = ["PromptState", "ends_with_header", "prompt_state", "turn_header"]


class PromptState(enum.Enum):
    """State of the thinking in the last message of a prompt."""

    BEFORE = "before"
    """Thinking has not begun."""
    OPENED = "opened"
    """The message ends with the start of thinking."""
    INSIDE = "inside"
    """The message ends inside thinking that the caller wrote."""
    CLOSED = "closed"
    """The thinking was closed."""

    @property
    def open(self) -> bool:
        """Return whether the next tokens are thinking."""
        return self in (PromptState.OPENED, PromptState.INSIDE)


def prompt_state(
    tokenizer: Any,
    thinking: ThinkingFormat,
    prompt_ids: Sequence[int],
    special: frozenset[int],
    turn: Sequence[int] = (),
) -> PromptState:
    """Return the state of a prompt.

    `special` tokens separate messages; `turn` is the header of an assistant's message.
    """
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
    if thinking.before_start:  # the end of thinking is the end of any message
        return False
    end = (*thinking.before_end, thinking.end_id)
    for stop in range(len(prompt_ids), 0, -1):
        if tuple(prompt_ids[max(stop - len(end), 0) : stop]) == end:
            return True
        if prompt_ids[stop - 1] in special or prompt_ids[stop - 1] == thinking.start_id:
            return False
    return False


def _closed_by_text(
    tokenizer: Any, thinking: ThinkingFormat, prompt_ids: Sequence[int], special: frozenset[int]
) -> bool:
    text = last_turn(tokenizer, prompt_ids, special)
    _, closed, after = text.rpartition(thinking.end_text.strip())
    return bool(closed) and thinking.start_text.strip() not in after


def ends_with_header(prompt_ids: Sequence[int], turn: Sequence[int]) -> bool:
    """Return whether a prompt ends with `turn`, the header of an assistant's message."""
    return tuple(prompt_ids[-len(turn) :]) == tuple(turn)


def turn_header(
    tokenizer: Any, family: Family, chat_template: str | None = None
) -> tuple[int, ...]:
    """Return the tokens that begin an assistant's message in the chat template, without thinking.

    `chat_template` replaces the tokenizer's own. The result is empty if the template fails or does
    not contain the end of the family's thinking, because the model may not think then. It is also
    empty if thinking starts with several tokens, because these distinguish it from other messages.
    """
    render, source = render_of(tokenizer, chat_template), source_of(tokenizer, chat_template)
    single = tokenizer.backend_tokenizer.token_to_id(family.start) is not None
    if render is None or source is None or not single or family.end not in source:
        return ()
    hello = [{"role": "user", "content": "Hello"}]
    history, prompt = (render(hello, add_generation_prompt=add) for add in (False, True))
    if history is None or prompt is None or not prompt.startswith(history):
        return ()
    header = prompt[len(history) :].split(family.start)[0].split(family.end)[0]
    return tuple(tokenizer.encode(header, add_special_tokens=False))
