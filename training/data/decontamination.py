"""N-gram decontamination: finds prompts that share a run of words with an evaluation set.

Words are separated by white space; case and punctuation at their ends are ignored. Operators are
kept: 47+8 and 47-8 are different problems, while 47 + 8 and 47+8 are the same. Chinese and Japanese
are written without spaces, so each of their characters is a word.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

__all__ = ["OverlapIndex", "words"]

Words = tuple[str, ...]

_SPACED_OPERATOR = re.compile(r"\s*([-+*/=^<>])\s*")
_WORD = re.compile(r"[぀-ヿ㐀-鿿]|[^\s぀-ヿ㐀-鿿]+")
_EDGES = '.,;:?"“”$'


def words(text: str) -> Words:
    """Return the normalized words of `text`; texts with equal words are the same problem."""
    plain = _SPACED_OPERATOR.sub(r"\1", unicodedata.normalize("NFC", text).casefold())
    stripped = (word.strip(_EDGES) for word in _WORD.findall(plain))
    return tuple(word for word in stripped if word) or (text,)


@dataclass(frozen=True, slots=True)
class OverlapIndex:
    """All runs of `n` words of the indexed texts; shorter texts are a single run."""

    n: int
    runs: Mapping[Words, str]
    """Place where each run was seen first."""

    @classmethod
    def build(cls, texts: Iterable[tuple[str, str]], n: int) -> Self:
        """Index pairs of (place, text)."""
        runs: dict[Words, str] = {}
        for place, text in texts:
            for run in _runs(words(text), n):
                runs.setdefault(run, place)
        return cls(n, runs)

    def find(self, of: Words) -> tuple[Words, str] | None:
        """Return the first shared run and its place in the indexed texts; None if there is none."""
        return next(((run, self.runs[run]) for run in _runs(of, self.n) if run in self.runs), None)


def _runs(of: Words, n: int) -> Iterator[Words]:
    return (of[start : start + n] for start in range(max(1, len(of) - n + 1)))
