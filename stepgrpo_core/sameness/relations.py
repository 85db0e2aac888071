r"""Equations, chains of equations, arrows and inequalities.

The value of an answer is the part after the last equality sign, if the parts before it agree: a
name (``x``, ``f(2)``, ``a+b``) or the same value (``2+3=5``). An unsolved equation (``x+1=5``) has
no value, nor has a chain whose parts differ (``83=82``, ``540 \Rightarrow 539``).
"""

import re
from dataclasses import dataclass, replace

from stepgrpo_core.sameness.scan import encloses, split_list, split_top

__all__ = [
    "ARROWS",
    "Interval",
    "are_different",
    "is_statement",
    "is_symbol",
    "name_and_parts",
    "region_of",
]

ARROWS = frozenset({"\\Rightarrow", "\\to", "\\Leftrightarrow"})
EQUALS = frozenset({"=", "\\in", "\\equiv"})
_ORDERS = {"<": (True, False), ">": (True, True), "\\le": (False, False), "\\ge": (False, True)}
"""Pairs: the bound is exclusive; the larger side is on the left."""
_INEQUALITIES = frozenset({*_ORDERS, "\\ne"})
_SYMBOL = re.compile(r"(?!\\infty|\\pi)(?:[a-zA-Z]|\\[a-z]+)(?:_(?:\{\w+\}|\w))?'*")
_ARGUMENTS = re.compile(
    r"_(?:\{[^{}]*\}|\w)|\^\{-1\}|(?<=[a-zA-Z}])\([^()]*\)|\\text\{[^{}]*\}|\{\([^()]*\)\}"
)
_BUILDER = re.compile(r"\\\{([a-z])(?:\\in ?\\mathbb\{R\})?(?:\\mid ?|\||:)(.*)\\\}")
_OPERATOR = re.compile(r"[-+*/^]|\\frac")
_NAME_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Interval:
    """Interval with its ends as formulas."""

    low: str
    high: str
    with_low: bool
    with_high: bool


def is_symbol(text: str) -> bool:
    """Return whether a text is one letter with an optional index."""
    return _SYMBOL.fullmatch(text) is not None


def are_different(one: str, other: str) -> bool:
    """Return whether two names in different notation have different meanings."""
    if (is_symbol(one) and is_symbol(other)) or re.search(r"[0-9]", one + other):
        return True
    return any(_OPERATOR.search(_ARGUMENTS.sub("", name)) for name in (one, other))


def is_statement(text: str) -> bool:
    """Return whether a text has an equality sign outside brackets."""
    return len(split_top(text, EQUALS)[0]) > 1


def name_and_parts(text: str) -> tuple[str | None, list[str]]:
    """Split at equality signs into the name that is defined, if any, and the other parts."""
    parts, _ = split_top(text, EQUALS)
    if len(parts) > 1 and _is_name(parts[0]):
        return parts[0], parts[1:]
    return None, parts


def _is_name(text: str) -> bool:
    bare = _ARGUMENTS.sub(" ", text)
    return len(text) <= _NAME_LENGTH and bool(bare) and not re.search(r"[0-9!]", bare)


def region_of(text: str) -> list[Interval] | None:
    """Parse a normalized text as a union of intervals or inequalities; None if it is neither."""
    if text in {"\\mathbb{R}", "all real numbers", "all reals"}:
        return [Interval("-\\infty", "\\infty", False, False)]
    if built := _BUILDER.fullmatch(text):
        text = built[2]
    name, parts = name_and_parts(text)
    if name and is_symbol(name) and len(parts) == 1 and "\\in" in text:
        text = parts[0]
    read = _brackets if "\\cup" in text else _inequality
    pieces = split_top(text, frozenset({"\\cup"}))[0] if "\\cup" in text else _alternatives(text)
    found = [read(piece) or _brackets(piece) for piece in pieces]
    return [interval for each in found for interval in each or []] if all(found) else None


def _alternatives(text: str) -> list[str]:
    return split_list(text) if re.search(r"[<>]|\\[lgn]e(?![a-zA-Z])", text) else [text]


def _brackets(text: str) -> list[Interval] | None:
    if text[:1] not in {"(", "["} or text[-1:] not in {")", "]"} or not encloses(text):
        return None
    ends = split_list(text[1:-1])
    if len(ends) != 2:
        return None
    return [Interval(ends[0], ends[1], text[0] == "[", text[-1] == "]")]


def _inequality(text: str) -> list[Interval] | None:
    """Parse bounds of one symbol, as in ``x<3``, ``1<=x<3`` or ``x!=3``."""
    parts, signs = split_top(text, _INEQUALITIES)
    if sum(map(is_symbol, parts)) != 1 or len(parts) not in {2, 3}:
        return None
    if signs == ["\\ne"]:
        gap = parts[0] if is_symbol(parts[1]) else parts[1]
        whole = Interval("-\\infty", "\\infty", False, False)
        return [replace(whole, high=gap), replace(whole, low=gap)]
    if len({_ORDERS[sign][1] for sign in signs if sign in _ORDERS}) != 1 or "\\ne" in signs:
        return None
    if _ORDERS[signs[0]][1]:
        parts, signs = parts[::-1], signs[::-1]
    return _bounds(parts, [not _ORDERS[sign][0] for sign in signs])


def _bounds(parts: list[str], within: list[bool]) -> list[Interval] | None:
    """Return the interval of the symbol in an ascending chain."""
    if len(parts) == 3:
        return [Interval(parts[0], parts[2], *within)] if is_symbol(parts[1]) else None
    if is_symbol(parts[0]):
        return [Interval("-\\infty", parts[1], False, within[0])]
    return [Interval(parts[0], "\\infty", within[0], False)]
