"""The text of a completion, in which the grader finds the thinking that the controller counted."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from stepgrpo_core import ThinkingFormat
from training.rollouts.batch import Rollout

__all__ = ["completion_text", "text_of"]


def text_of(rollout: Rollout, tokenizer: Any, thinking: ThinkingFormat) -> str:
    """Return the text of a rollout without special tokens, except start and end of its thinking.

    Thinking that began without a start, as in templates that imply it, gets one: without an end it
    is then no answer, as in the server.
    """
    unopened = not rollout.thinking_open and rollout.outcome.reasoning_tokens > 0
    thinks = rollout.thinking_open or unopened
    text = completion_text(tokenizer, rollout.ids, thinking, thinks=thinks)
    start = thinking.start_text or tokenizer.decode(_start(thinking), skip_special_tokens=False)
    return f"{start}{text}" if unopened and start.strip() not in text else text


def completion_text(
    tokenizer: Any, ids: Sequence[int], thinking: ThinkingFormat, *, thinks: bool
) -> str:
    """Return the text of (L,) ids without special tokens, except start and end of the thinking.

    `thinks`: the thinking needs no start. Without thinking, the token that ends it has another
    meaning and is left out; so is its second occurrence.
    """
    start, end = _start(thinking), [*thinking.before_end, thinking.end_id]
    if thinking.end_text or not _skipped(tokenizer, [*start, *end]):
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))
    opened = _find(ids, start, 0)
    closed = _find(ids, end, opened[1]) if thinks or opened[1] else (0, 0)
    # Pieces alternate between text and mark; a mark that is missing is an empty piece in front.
    places = [0, *opened, *closed, len(ids)]
    return "".join(
        tokenizer.decode(list(ids[begin:stop]), skip_special_tokens=piece % 2 == 0)
        for piece, (begin, stop) in enumerate(pairwise(sorted(places)))
    )


def _start(thinking: ThinkingFormat) -> list[int]:
    return [*thinking.before_start, thinking.start_id]


def _skipped(tokenizer: Any, ids: Sequence[int]) -> bool:
    """Return whether decoding leaves out some of these ids as special tokens.

    `all_special_ids` would not tell: it has only those with a role, such as end of sequence.
    """
    bare, whole = (tokenizer.decode(ids, skip_special_tokens=skip) for skip in (True, False))
    return bool(bare != whole)


def _find(ids: Sequence[int], part: Sequence[int], begin: int) -> tuple[int, int]:
    """Return the range of the first `part` in `ids` from `begin` on; (0, 0) if there is none."""
    size = len(part)
    places = range(begin, len(ids) - size + 1)
    found = next((at for at in places if list(ids[at : at + size]) == list(part)), None)
    return (0, 0) if found is None else (found, found + size)
