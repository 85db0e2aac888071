"""Lenient reader: accepts anything that math-verify finds in a text; a second column in
evaluation."""

import re
from collections.abc import Sequence
from typing import Any

from stepgrpo_core.sameness import letter_of

__all__ = ["lenient_reason"]

CHOICES = tuple("ABCDEFGHIJ")  # MMLU-Pro has the most: ten

_BRACKETED = re.compile(r"\\[A-Za-z]+|[^\w\s.,:]")  # markup, as in **(B)** or \text{B}
_ENVIRONMENT = re.compile(r"(?<!\\)(?:\$|\\\(|\\\[)")


def lenient_reason(gold: str, texts: Sequence[str]) -> str:
    """Return "equal" if math-verify finds the gold in one of the texts, else "different"."""
    if letter := letter_of(gold.strip()):
        return "equal" if any(letter.lower() in _letters(text) for text in texts) else "different"
    golds = _found(_environment(gold))
    if all(isinstance(each, str) for each in golds):  # math-verify found nothing, or only text
        return "gold unparsed"
    return "equal" if any(_verified(golds, _found(text)) for text in texts) else "different"


def _letters(text: str) -> list[Any]:
    from math_verify import StringExtractionConfig  # noqa: PLC0415

    config = [StringExtractionConfig(strings=CHOICES)]
    return _found(_BRACKETED.sub(" ", text), extraction_config=config)


def _environment(gold: str) -> str:
    """Return the gold in a LaTeX environment on one line, as math-verify requires."""
    line = " ".join(gold.split())
    return line if _ENVIRONMENT.search(line) else f"${line}$"


def _found(text: str, **options: Any) -> list[Any]:
    from math_verify import parse  # noqa: PLC0415

    found: list[Any] = parse(text, parsing_timeout=None, raise_on_error=True, **options)
    return found


def _verified(golds: list[Any], answers: list[Any]) -> bool:
    from math_verify import verify  # noqa: PLC0415

    return bool(verify(golds, answers, timeout_seconds=None, raise_on_error=True))
