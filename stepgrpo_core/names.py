"""Unknown names: the known one that was probably meant."""

import difflib
from collections.abc import Iterable

__all__ = ["closest", "suggest"]


def closest(name: object, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name most like `name`, or None if none reaches `cutoff`, from 0 to 1."""
    return next(iter(difflib.get_close_matches(str(name), list(known), 1, cutoff)), None)


def suggest(name: object, known: Iterable[str]) -> str:
    """Return what to write instead of an unknown name: the closest one, or else one of all."""
    names = sorted(known)
    near = closest(name, names)
    return f"did you mean {near!r}?" if near else f"use one of {', '.join(names)}"
