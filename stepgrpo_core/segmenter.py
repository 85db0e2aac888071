r"""Splitting reasoning into semantic steps at linguistic markers ("Wait", ...).

The number of steps is k = 1 + the number of markers (Step-GRPO, arXiv 2604.16890). A marker
counts when it stands as a whole word: "Waiting" and "await" hold none. Scripts written without
spaces have no whole words to ask for, so a marker of such a script counts wherever it stands.
Entries that overlap ("Wait" inside "But wait") count once: the leftmost wins, then the longest.
An entry that begins with ``!`` is an exception: where it stands ("!Wait time") no shorter one
counts. One that begins with ``^`` counts at the beginning of a clause only, which scripts without
spaces need: "^等等", not the "et cetera" behind a noun. Code is no reasoning: nothing counts
between lines that open with three backticks, nor directly behind a backtick, a brace or a
backslash, as in ``\text{Wait}``.

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
        *("换个思路", "换一种", "换个角度", "另一种方法", "另一种思路", "^或者", "^另外"),
        *("!，或者", "!、或者", "!；或者", "!,或者", "!, 或者", "!，另外", "!^不对称", "!^不对应"),
    ),
    "german": (
        *("Moment", "Warte", "Halt", "Hmm", "Alternativ", "Oder doch", "Stimmt nicht"),
        *("Lass mich prüfen", "Lass mich noch einmal", "Noch einmal prüfen", "Andererseits"),
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
`paper`: the two that Step-GRPO's text names. The others are ours; docs/algorithm.md says which
of them were measured."""

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

    __slots__ = ("_buffer", "_code", "_lexicon", "_offset", "_skip", "steps", "undecided")

    def __init__(self, markers: Sequence[str] = DEFAULT_MARKERS) -> None:
        if isinstance(markers, str):
            raise InvalidSetting("markers", markers, "pass a sequence of markers, not one string")
        self._lexicon = _compile(tuple(markers))
        self._buffer = ""  # the undecided text, with the one character before it
        self._offset = 0  # of the buffer's first character
        self._skip = 0  # characters of the buffer that are context, already decided
        self._code = False  # inside a block of it
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
        """Whether a match is a marker; a fence turns code on or off."""
        if text == _FENCE:
            self._code = not self._code
            return False
        return not self._code and text not in self._lexicon.exceptions


_FENCE = "```"


@dataclass(frozen=True, slots=True)
class _Lexicon:
    pattern: re.Pattern[str]
    exceptions: frozenset[str]
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
    exceptions = {each[1:] for each in markers if each[0] == "!" and len(each) > 1}
    counted = {each for each in markers if each[1:] not in exceptions}
    # Longest first, so that the alternation prefers it; markers are text, never patterns.
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
    """The marker's text."""
    return marker[1:] if marker[0] == "^" and len(marker) > 1 else marker


def _whole_word(marker: str) -> str:
    """The marker's pattern. It starts with a literal, which lets `re` skip ahead quickly."""
    text = _bare(marker)
    first, rest = re.escape(text[0]), re.escape(text[1:])
    before = f"(?<!{_WORD}{first})" if _is_word(text[0]) else ""
    if text != marker:  # where a clause begins, or directly behind another of its kind
        before = rf"(?<![\w{_COMBINING}]{first})"
        if text[0] == text[-1]:
            before = rf"(?:{before}|(?<={first}{first}))"
    before += rf"(?<![`{{\\]{first})"
    after = f"(?!{_WORD})" if _is_word(text[-1]) else f"(?![{_COMBINING}])"
    return first + before + rest + after


def _undecided_endings(markers: Iterable[str]) -> Iterable[str]:
    for marker in markers:
        # The whole marker too: its next character decides whether it is a whole word.
        yield from (marker[:length] for length in range(1, len(marker) + 1))
