"""Splitting of formulas at separators outside brackets."""

import re
from collections.abc import Iterator

__all__ = ["encloses", "pieces", "split_list", "split_top"]

_OPENING = {"(", "[", "{", "\\{", "\\begin"}
_CLOSING = {")", "]", "}", "\\}", "\\end"}
_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|.", re.DOTALL)
_GROUPED = re.compile(r"(?<![0-9,.])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_FACTOR = re.compile(rf"{_GROUPED.pattern}(?=[a-zA-Z\\(^])(?!\\\\|\\text)")


def pieces(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield every token with its offset and the number of brackets around it."""
    depth = 0
    for token in _TOKEN.finditer(text):
        if token[0] in _CLOSING:
            depth = max(depth - 1, 0)
        yield token[0], token.start(), depth
        if token[0] in _OPENING:
            depth += 1


def encloses(text: str) -> bool:
    """Return whether the bracket at the start is closed by the one at the end."""
    outside = [(token, place) for token, place, depth in pieces(text) if depth == 0]
    return len(outside) == 2 and outside[1][1] + len(outside[1][0]) == len(text)


def split_top(text: str, separators: frozenset[str]) -> tuple[list[str], list[str]]:
    """Split outside brackets; return the parts and the separators between them."""
    parts, found, start = [], [], 0
    for token, place, depth in pieces(text):
        if depth == 0 and token in separators:
            parts.append(text[start:place].strip())
            found.append(token)
            start = place + len(token)
    return [*parts, text[start:].strip()], found


def split_list(text: str) -> list[str]:
    """Split a list at commas and semicolons, at line breaks and at the words "or" and "and".

    A comma between a digit and three digits separates thousands in a factor (``12,000x``), and if
    other commas of the same list are followed by a space.
    """
    grouped = _GROUPED if ", " in text else _FACTOR
    text = grouped.sub(lambda found: found[0].replace(",", ""), text)
    text = re.sub(r"(?:, ?)?(?<![a-zA-Z\\])(?:or|and)(?![a-zA-Z])", ";", text)
    parts, _ = split_top(text, frozenset({",", ";", "\\\\"}))
    return [part for part in parts if part] if len(parts) > 1 else parts
