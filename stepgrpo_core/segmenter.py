r"""Segmentation of reasoning into steps at linguistic markers ("Wait", ...).

The number of steps is k = 1 + the number of markers (Step-GRPO, arXiv 2604.16890). A marker
must be a whole word: "Waiting" and "await" contain none. In scripts without spaces between
words a marker counts anywhere. Of overlapping markers ("Wait" inside "But wait") one counts:
the leftmost, then the longest. A lexicon entry that begins with ``!`` is an exception: text
that matches it ("!Wait time") contains no shorter marker. An entry that begins with ``^``
counts only at the beginning of a clause, for scripts without spaces: "^等等", but not the "et
cetera" after a noun. Markers in code do not count: between lines that open with three
backticks, and directly after a backtick, a brace or a backslash, as in ``\text{Wait}``.

Counting and streaming use the same pattern. While streaming, the end of the text is *undecided* if
it could still become a marker, or if the next character decides whether a marker is a whole word;
everything before it is final. So the result does not depend on the chunks, and the memory is
bounded by the longest marker.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepgrpo_core.errors import InvalidSetting

__all__ = ["DEFAULT_MARKERS", "LEXICONS", "Marker", "StepSegmenter", "count_steps", "is_quiet"]

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
    "english": (
        *("Wait", "But wait", "but wait", "Oh wait", "No wait", "No, wait", "no, wait"),
        *("Actually, wait", "actually, wait", "Hmm, wait", "wait, no", "wait, actually"),
        *("wait, that", "wait, I", "wait, is", "wait, if", "Hold on", "hold on"),
        *("Hmm", "Hmm, actually", "Actually,", "On second thought", "Or maybe"),
        *("Alternatively", "Another way", "Another approach", "But maybe", "But another"),
        *("Let me check", "let me check", "Let me double-check", "let me double-check"),
        *("Let me verify", "let me verify", "Let me recheck", "let me recheck"),
        *("Let me reconsider", "let me reconsider", "Let me re-", "let me re-"),
        *("Let me think again", "Let me try", "Let me also", "Just to make sure"),
        *("Just to be sure", "just to be sure", "just to be thorough", "Just to confirm"),
        *("!Wait time", "!Wait times", "!Wait list", "!Wait-", "!Wait until", "!Wait for the"),
    ),
    "chinese": (
        *("^等等", "^等一下", "^稍等", "^不对", "不，不对", "这不对", "好像不对", "似乎不对"),
        *("让我检查", "让我再检查", "再检查一下", "重新检查", "让我重新", "让我验证", "再想想"),
        *("让我再看", "让我们检查", "让我们仔细检查", "重新理解", "^哎呀"),
        *("换个思路", "换一种", "换个角度", "另一种方法", "另一种思路", "^或者"),
        *("!，或者", "!、或者", "!；或者", "!,或者", "!, 或者", "!^不对称", "!^不对应"),
    ),
    "german": (
        *("Moment", "Warte", "Halt", "Hmm", "Alternativ", "Oder doch", "Stimmt nicht"),
        *("Lass mich prüfen", "Lass mich noch einmal", "Noch einmal prüfen", "Andererseits"),
        *("Ich überprüfe", "Ich überdenke"),
    ),
    "french": (
        *("Attends", "Attendez", "Attendons", "Hmm", "Mais attends", "En fait,", "Sinon,"),
        *("Alternativement", "Vérifions", "Voyons si", "Reprenons", "Une autre approche"),
    ),
    "spanish": (
        *("Espera", "Un momento", "Pero espera", "Hmm", "En realidad,", "Alternativamente"),
        *("Verifiquemos", "Comprobemos", "Déjame comprobar", "Otra forma", "Pensándolo bien"),
    ),
    "japanese": (
        *("待って", "ちょっと待", "^いや、", "^いや待", "^あれ、", "うーん", "確認しよう"),
        *("もう一度確認", "見直そう", "見直して", "別の方法", "^あるいは、", "^やっぱり"),
    ),
    "russian": (
        *("Подожди", "Подождите", "Стоп", "Хм", "Погоди", "Либо же", "На самом деле,"),
        *("Проверим", "Давай проверю", "Давайте проверим", "Другой способ", "Альтернативно"),
    ),
}
"""Named marker lists. `deer`: DEER (arXiv 2504.15895) and Step-GRPO's published code.
`paper`: the two markers named in the text of Step-GRPO. The others are ours; docs/algorithm.md says
which of them were measured."""

DEFAULT_MARKERS = LEXICONS["paper"]
"""Default markers, both for counting steps and for exits."""

# Word characters except scripts that are written without spaces between words: Thai, Lao,
# Myanmar, Khmer, kana, bopomofo, and Han with its extensions.
_NO_SPACES = "฀-໿က-႟ក-៿぀-ヿㄅ-ㄯㇰ-ㇿ㐀-䶿一-鿿豈-﫿\U00020000-\U0003ffff"
_COMBINING = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_WORD = rf"(?:[^\W{_NO_SPACES}]|[{_COMBINING}])"
_IS_WORD = re.compile(_WORD)


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker in the text, with character offsets; `end` is exclusive."""

    start: int
    end: int
    text: str


def count_steps(text: str, markers: Sequence[str] = DEFAULT_MARKERS) -> int:
    """Return k = 1 + the number of `markers` in `text` (Step-GRPO, section 3).

    Raises InvalidSetting for an empty marker list or an empty marker.
    """
    segmenter = StepSegmenter(markers)
    segmenter.feed(text)
    segmenter.finish()
    return segmenter.steps


def is_quiet(text: str, markers: Sequence[str] = DEFAULT_MARKERS) -> bool:
    """Return whether no marker can begin in `text`, nor code, whatever precedes it.

    If nothing is undecided before such a text, then nothing is undecided after it, and it holds no
    marker. Raises InvalidSetting as `count_steps` does.
    """
    lexicon = _compile(tuple(markers))
    return lexicon.open_from(text, 0) == len(text) and lexicon.pattern.search(text) is None


class StepSegmenter:
    """Finds markers in streamed text; the result does not depend on the chunks.

    ::

        segmenter = StepSegmenter()
        segmenter.feed("55. Wai")   # []: could still become "Wait"
        segmenter.feed("t, is it")  # [Marker(start=4, end=8, text="Wait")]
        segmenter.finish()          # []: decides what was undecided

    No text may be fed after `finish`.
    """

    __slots__ = ("_buffer", "_code", "_lexicon", "_offset", "_skip", "steps", "undecided")

    def __init__(self, markers: Sequence[str] = DEFAULT_MARKERS) -> None:
        if isinstance(markers, str):
            raise InvalidSetting("markers", markers, "pass a sequence of markers, not one string")
        self._lexicon = _compile(tuple(markers))
        self._buffer = ""  # undecided text and the character before it
        self._offset = 0  # of the first character of the buffer
        self._skip = 0  # characters of the buffer that are context, already decided
        self._code = False  # inside a code block
        self.steps = 1
        """Number of steps k so far."""
        self.undecided = 0
        """Offset of the first character that may still belong to a marker."""

    def feed(self, chunk: str) -> list[Marker]:
        """Process the next chunk; return the markers that are final."""
        return self._scan(self._buffer + chunk, final=False)

    def skip(self, text: str) -> None:
        """Process text, not empty, of parts that `is_quiet` is true of; nothing may be undecided
        before it."""
        self._offset += len(self._buffer) + len(text) - 1
        self._buffer, self._skip = text[-1], 1
        self.undecided = self._offset + 1

    def finish(self) -> list[Marker]:
        """Process the end of the text; return the last markers."""
        return self._scan(self._buffer, final=True)

    def _scan(self, text: str, *, final: bool) -> list[Marker]:
        found: list[Marker] = []
        position = self._skip
        open_from = len(text) if final else self._lexicon.open_from(text, position)
        while match := self._lexicon.pattern.search(text, position):
            if match.start() >= open_from:
                break
            if self._counts(match.group()):
                start, end = (self._offset + each for each in match.span())
                found.append(Marker(start, end, match.group()))
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

    def _counts(self, text: str) -> bool:
        """Return whether a match counts as a marker; a fence toggles code."""
        if text == _FENCE:
            self._code = not self._code
            return False
        return not self._code and text not in self._lexicon.exceptions


_FENCE = "```"


@dataclass(frozen=True, slots=True)
class _Lexicon:
    pattern: re.Pattern[str]
    exceptions: frozenset[str]
    undecided: frozenset[str]  # endings of a text that may still become a marker
    longest: int

    def open_from(self, text: str, position: int) -> int:
        """Return the start of the first undecided marker at the end of `text`."""
        for start in range(max(position, len(text) - self.longest), len(text)):
            if text[start:] in self.undecided and not _inside_word(text, start):
                return start
        return len(text)


def _inside_word(text: str, start: int) -> bool:
    """Return whether a marker at `start` would be inside a word."""
    return start > 0 and _is_word(text[start]) and _is_word(text[start - 1])


def _is_word(character: str) -> bool:
    return _IS_WORD.match(character) is not None


@functools.lru_cache(maxsize=64)
def _compile(markers: tuple[str, ...]) -> _Lexicon:
    if not markers or not all(markers):
        raise InvalidSetting("markers", markers, "pass at least one marker, none empty")
    exceptions = {each[1:] for each in markers if each[0] == "!" and len(each) > 1}
    counted = {each for each in markers if each[1:] not in exceptions}
    # Longest first, because an alternation takes its first match. Markers are literal text.
    ordered = sorted(exceptions | counted, key=lambda text: (-len(_bare(text)), text))
    texts = list(map(_bare, ordered))
    patterns = [*map(_whole_word, ordered), r"`(?<!\S`)``"]
    return _Lexicon(
        pattern=re.compile("|".join(patterns)),
        exceptions=frozenset(map(_bare, exceptions)),
        undecided=frozenset(_undecided_endings(texts)) | {_FENCE[:1], _FENCE[:2]},
        longest=max(len(texts[0]), len(_FENCE)),
    )


def _bare(marker: str) -> str:
    """Return the text of a lexicon entry without its ``^``."""
    return marker[1:] if marker[0] == "^" and len(marker) > 1 else marker


def _whole_word(marker: str) -> str:
    """Return the pattern of a lexicon entry. A literal first character lets `re` skip ahead."""
    text = _bare(marker)
    first, rest = re.escape(text[0]), re.escape(text[1:])
    before = f"(?<!{_WORD}{first})" if _is_word(text[0]) else ""
    if text != marker:  # at the beginning of a clause, or directly after the same marker
        before = rf"(?<![\w{_COMBINING}]{first})"
        if text[0] == text[-1]:
            before = rf"(?:{before}|(?<={first}{first}))"
    before += rf"(?<![`{{\\]{first})"
    after = f"(?!{_WORD})" if _is_word(text[-1]) else f"(?![{_COMBINING}])"
    return first + before + rest + after


def _undecided_endings(markers: Iterable[str]) -> Iterable[str]:
    for marker in markers:
        # Also the whole marker: the next character decides whether it is a whole word.
        yield from (marker[:length] for length in range(1, len(marker) + 1))
