"""Splitting reasoning into semantic steps at linguistic markers ("Wait", ...).

The number of steps is k = 1 + the number of markers (Step-GRPO, arXiv 2604.16890). A marker
counts when it stands as a whole word: "Waiting" and "await" hold none. Scripts written without
spaces have no whole words to ask for, so a marker of such a script counts wherever it stands.
Entries that overlap ("Wait" inside "But wait") count once: the leftmost wins, then the longest.

The same pattern serves counting and streaming. While streaming, the end of the text so far is
*undecided* when it could still grow into a marker, or when the next character decides whether
a marker is a whole word; everything before it is final. That makes the result independent of
how the text is cut into chunks, and bounds the memory to the longest marker.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepgrpo_core.errors import InvalidSetting

__all__ = ["DEFAULT_MARKERS", "LEXICONS", "Marker", "StepSegmenter", "count_steps"]

LEXICONS: dict[str, tuple[str, ...]] = {
    "deer": ("Wait",),
    "paper": ("Wait", "Alternatively"),
    "reflective": (
        "Wait",
        "But wait",
        "Alternatively",
        "Hmm",
        "Let me check",
        "Let me double-check",
        "Let me verify",
        "Let me reconsider",
        "On second thought",
        "Hold on",
    ),
    "chinese": ("等等", "等一下", "不对", "另外", "或者", "让我检查", "让我再检查", "再检查一下"),
}
"""Named marker lists. `deer`: DEER (arXiv 2504.15895) and Step-GRPO's published code.
`paper`: the two that Step-GRPO's text names. The others are ours."""

DEFAULT_MARKERS = LEXICONS["paper"]
"""What counting and truncation use unless told otherwise: one list for both."""

# Word characters, less the scripts that are written without spaces between words: Thai, Lao,
# Myanmar, Khmer, kana, bopomofo, and Han with its extensions.
_NO_SPACES = "฀-໿က-႟ក-៿぀-ヿㄅ-ㄯㇰ-ㇿ㐀-䶿一-鿿豈-﫿\U00020000-\U0003ffff"
_COMBINING = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_WORD = rf"(?:[^\W{_NO_SPACES}]|[{_COMBINING}])"
_IS_WORD = re.compile(_WORD)


@dataclass(frozen=True, slots=True)
class Marker:
    """One marker in the text; `start` and `end` are character offsets, `end` not included."""

    start: int
    end: int
    text: str


def count_steps(text: str, markers: Sequence[str] = DEFAULT_MARKERS) -> int:
    """k = 1 + the number of whole-word `markers` in `text` (Step-GRPO, section 3).

    Raises InvalidSetting for an empty marker list or an empty marker.
    """
    segmenter = StepSegmenter(markers)
    segmenter.feed(text)
    segmenter.finish()
    return segmenter.steps


class StepSegmenter:
    """Finds markers in text that arrives in chunks; the chunks do not matter.

    ::

        segmenter = StepSegmenter()
        segmenter.feed("55. Wai")   # []: could still become "Wait"
        segmenter.feed("t, is it")  # [Marker(start=4, end=8, text="Wait")]
        segmenter.finish()          # []: what was undecided is decided now

    After `finish` the segmenter takes no more text.
    """

    __slots__ = ("_buffer", "_lexicon", "_offset", "_skip", "steps", "undecided")

    def __init__(self, markers: Sequence[str] = DEFAULT_MARKERS) -> None:
        if isinstance(markers, str):
            raise InvalidSetting("markers", markers, "pass a sequence of markers, not one string")
        self._lexicon = _compile(tuple(markers))
        self._buffer = ""  # the undecided text, with the one character before it
        self._offset = 0  # of the buffer's first character
        self._skip = 0  # characters of the buffer that are context, already decided
        self.steps = 1
        """k so far."""
        self.undecided = 0
        """Offset from which the text may still turn out to be part of a marker."""

    def feed(self, chunk: str) -> list[Marker]:
        """Take the next stretch of text; return the markers that are now certain."""
        return self._scan(self._buffer + chunk, final=False)

    def finish(self) -> list[Marker]:
        """Decide what the end of the text left open."""
        return self._scan(self._buffer, final=True)

    def _scan(self, text: str, *, final: bool) -> list[Marker]:
        found: list[Marker] = []
        position = self._skip
        open_from = len(text) if final else self._lexicon.open_from(text, position)
        while match := self._lexicon.pattern.search(text, position):
            if match.start() >= open_from:
                break
            found.append(
                Marker(self._offset + match.start(), self._offset + match.end(), match.group())
            )
            position = match.end()
            if position > open_from:
                open_from = self._lexicon.open_from(text, position)
        self.steps += len(found)
        keep = max(open_from - 1, 0)  # one character of context for the word boundary
        self._buffer = text[keep:]
        self._skip = open_from - keep
        self._offset += keep
        self.undecided = self._offset + self._skip
        return found


@dataclass(frozen=True, slots=True)
class _Lexicon:
    pattern: re.Pattern[str]
    undecided: frozenset[str]  # endings of a text that leave a marker open
    longest: int

    def open_from(self, text: str, position: int) -> int:
        """Where the first undecided marker at the end of `text` would start."""
        for start in range(max(position, len(text) - self.longest), len(text)):
            if text[start:] in self.undecided and not _inside_word(text, start):
                return start
        return len(text)


def _inside_word(text: str, start: int) -> bool:
    """Whether a marker that starts at `start` would continue a word."""
    return start > 0 and _is_word(text[start]) and _is_word(text[start - 1])


def _is_word(character: str) -> bool:
    return _IS_WORD.match(character) is not None


@functools.lru_cache(maxsize=64)
def _compile(markers: tuple[str, ...]) -> _Lexicon:
    if not markers or not all(markers):
        raise InvalidSetting("markers", markers, "pass at least one marker, and none empty")
    # Longest first, so that the alternation prefers it; markers are text, never patterns.
    ordered = sorted(set(markers), key=len, reverse=True)
    return _Lexicon(
        pattern=re.compile("|".join(_whole_word(marker) for marker in ordered)),
        undecided=frozenset(_undecided_endings(ordered)),
        longest=len(ordered[0]),
    )


def _whole_word(marker: str) -> str:
    """The marker's pattern. It starts with a literal, which lets `re` skip ahead quickly."""
    first, rest = re.escape(marker[0]), re.escape(marker[1:])
    before = f"(?<!{_WORD}{first})" if _is_word(marker[0]) else ""
    after = f"(?!{_WORD})" if _is_word(marker[-1]) else f"(?![{_COMBINING}])"
    return first + before + rest + after


def _undecided_endings(markers: Iterable[str]) -> Iterable[str]:
    for marker in markers:
        # The whole marker too: its next character decides whether it is a whole word.
        yield from (marker[:length] for length in range(1, len(marker) + 1))
