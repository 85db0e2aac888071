r"""Extraction of the answer: the last ``\boxed{}`` after the thinking."""

import re

__all__ = ["THINK_END", "THINK_START", "answer_text", "final_answer", "last_box"]

THINK_START = "<think>"
THINK_END = "</think>"

# The tokens that matter for balancing: the start of a box, escaped characters, braces.
_TOKEN = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


def answer_text(
    completion: str,
    *,
    thinking_open: bool = False,
    start: str = THINK_START,
    end: str = THINK_END,
) -> str | None:
    """Return the text after the thinking; None if the thinking was not closed.

    `start` and `end` are how the model's family writes thinking. `thinking_open` says that the
    prompt already ended in `start`. The first `end` ends the thinking; a later one is part of the
    answer. Without any thinking the whole completion is the answer.
    """
    head, found, tail = completion.partition(end)
    if found:
        return tail
    return None if thinking_open or start in head else completion


def last_box(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{...}``; None without one or if it is not closed.

    A last box that is truncated gives None even after a complete one. Escaped braces (``\{``) do
    not count. The time is linear, also for unbalanced input.
    """
    last, content = -1, None
    open_braces: list[int | None] = []  # start of the content of a box, None for other braces
    for token in _TOKEN.finditer(text):
        symbol = token.group()
        if symbol == "{":
            open_braces.append(None)
        elif symbol.endswith("{") and symbol.startswith("\\boxed"):
            last, content = token.end(), None
            open_braces.append(last)
        elif symbol == "}" and open_braces and open_braces.pop() == last:
            content = text[last : token.start()]
    return content


def final_answer(completion: str, *, thinking_open: bool = False) -> str | None:
    """Return the last box after the thinking; None without one or if thinking was not closed."""
    text = answer_text(completion, thinking_open=thinking_open)
    return None if text is None else last_box(text)
