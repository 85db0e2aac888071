r"""Extraction of the answer: the last ``\boxed{}`` after the thinking."""

import re

__all__ = ["THINK_END", "THINK_START", "answer_text", "final_answer", "last_box"]

THINK_START = "<think>"
THINK_END = "</think>"

# The tokens that matter for balancing: the start of a box, escaped characters, braces.
_TOKEN = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


def answer_text(completion: str, *, thinking_open: bool = False) -> str | None:
    """Return the text after the thinking; None if the thinking was not closed.

    Set `thinking_open` if the prompt ends in ``<think>``. The first ``</think>`` ends the thinking;
    later ones belong to the answer. A completion without thinking is all answer.
    """
    head, end, tail = completion.partition(THINK_END)
    if end:
        return tail
    return None if thinking_open or THINK_START in head else completion


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
