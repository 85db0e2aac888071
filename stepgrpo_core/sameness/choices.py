"""Letters of multiple-choice options, alone or with the text of the option."""

import re

from stepgrpo_core.sameness.notation import unwrapped

__all__ = ["letter_of", "option_of"]

_SPACED = re.compile(r"[(\[] *([A-Za-z]) *[)\]]")
_LETTER = re.compile(r"\(?([A-Z])\)?")
_BARE = re.compile(r"(?:(?:option|choice|answer)[ :]*)?[(\[]?([A-Za-z])[)\]]?[.:]?", re.IGNORECASE)
_OPTION = re.compile(
    r"(?:(?:option|choice|answer)[ :]*)?"
    r"(?:[(\[]([A-Z])[)\]][.:]?|([A-Z])(?:[):,]|\.(?![0-9])| -(?= )))(.*)",
    re.IGNORECASE | re.DOTALL,
)
_OTHERS = re.compile(
    r"(?:^|[,;&]|\b(?:or|and|not)\b) *(?:option |choice )?"
    r"[(\[]?[A-Z][)\]]?(?:$|[):.,;]| (?:or|and)\b)",
    re.IGNORECASE,
)


def letter_of(text: str) -> str | None:
    """Return the letter of a gold answer like "B" or "(B)"; None for others."""
    found = _LETTER.fullmatch(text)
    return found[1] if found else None


def option_of(text: str) -> tuple[str, str] | None:
    """Return the letter that an answer names, with the text of the option; None without a letter.

    An answer with a second letter has none.
    """
    text = _SPACED.sub(r"(\1)", unwrapped(text).strip())
    if bare := _BARE.fullmatch(text):
        return bare[1].upper(), ""
    found = _OPTION.fullmatch(text)
    if found is None or _OTHERS.search(found[3].strip()):
        return None
    return (found[1] or found[2]).upper(), found[3].strip()
