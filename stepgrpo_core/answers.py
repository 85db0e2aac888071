r"""Where the answer of a completion is: after the thinking, in the last ``\boxed{}``."""

import re
from fractions import Fraction

__all__ = ["THINK_END", "THINK_START", "answer_text", "final_answer", "last_box", "same_value"]

THINK_START = "<think>"
THINK_END = "</think>"

_NUMBER = r"[+-]?(?:[0-9]{1,64}(?:\.[0-9]{1,64})?|\.[0-9]{1,64})"  # no exponents: they explode
_RATIO = re.compile(rf"({_NUMBER})(?:/({_NUMBER}))?")
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_LAYOUT = re.compile(r"\\(?:left|right)(?![a-zA-Z])|\\[,;!: ]|[$\s]")
# A box opens, or an escaped character, or a brace: all that matters for balancing.
_TOKEN = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


def answer_text(completion: str, *, thinking_open: bool = False) -> str | None:
    """The text after the thinking; None when the thinking never closed.

    `thinking_open` says that the prompt already ended in ``<think>``. The first ``</think>``
    ends the thinking; a later one is part of the answer. Without any thinking the whole
    completion is the answer.
    """
    head, end, tail = completion.partition(THINK_END)
    if end:
        return tail
    return None if thinking_open or THINK_START in head else completion


def last_box(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` whose braces balance; None without one.

    Escaped braces (``\{``) do not count. Linear time, also on unbalanced input.
    """
    best: tuple[int, str] | None = None
    open_braces: list[int | None] = []  # start of a box's content, None for other braces
    for token in _TOKEN.finditer(text):
        symbol = token.group()
        if symbol == "{":
            open_braces.append(None)
        elif symbol.endswith("{") and symbol.startswith("\\boxed"):
            open_braces.append(token.end())
        elif symbol == "}" and open_braces:
            start = open_braces.pop()
            if start is not None and (best is None or start > best[0]):
                best = (start, text[start : token.start()])
    return best[1] if best else None


def final_answer(completion: str, *, thinking_open: bool = False) -> str | None:
    """The last box after the thinking; None when there is none or the thinking never closed."""
    text = answer_text(completion, thinking_open=thinking_open)
    return None if text is None else last_box(text)


def same_value(left: str, right: str) -> bool:
    r"""Whether two answers are the same number, fraction or, less layout, spelling.

    "1/2", "0.5" and ``\frac{1}{2}`` are equal; of formulas only the spelling is compared.
    """
    return _value(left) == _value(right)


def _value(answer: str) -> Fraction | str:
    plain = _FRACTION.sub(r"\1/\2", _LAYOUT.sub("", answer)).rstrip(".")
    number = _RATIO.fullmatch(_THOUSANDS.sub("", plain))
    if number is None:
        return plain
    above, below = Fraction(number[1]), Fraction(number[2] or 1)
    return above / below if below else plain
