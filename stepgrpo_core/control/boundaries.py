"""Finds the boundaries at which a policy may act, in thinking that arrives token by token.

Token ids are authoritative and text is derived from them: the text of each token is its increment
in a streaming decoder ("" while a character is incomplete). A boundary is found in the text and
mapped to a number of tokens to keep. A cut before a character falls before the first token that
carries a part of it; a cut after a character falls after the token that completes it.

Boundaries are returned in the order of their cuts. A boundary therefore waits until the text
before it is *decided*, that is, until it cannot contain an earlier cut. This depends on tokens
alone, not on how they are chunked. The undecided text is never longer than the longest marker or
the closing quotes of one sentence.
"""

import functools
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

from stepgrpo_core.control.edges import Ending
from stepgrpo_core.control.events import ThinkingFormat
from stepgrpo_core.control.matching import ThinkTokenMatcher
from stepgrpo_core.control.states import Signal
from stepgrpo_core.policies import BoundaryKind
from stepgrpo_core.segmenter import StepSegmenter, count_steps, is_quiet

__all__ = ["BoundaryFinder", "Found", "step_starts"]

_STOPS, _WIDE_STOPS, _CLOSERS = ".!?", "。！？", "\"'”’)]}*»」』）"

_LAYOUT = frozenset({BoundaryKind.LINE, BoundaryKind.PARAGRAPH, BoundaryKind.SENTENCE})


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """A boundary that keeps the first `tokens` thinking tokens."""

    tokens: int
    order: int
    """The order in which boundaries were found; on ties the earlier one comes first."""
    place: BoundaryKind
    generated: int
    """Thinking tokens so far when the boundary was found."""


class BoundaryFinder:
    """Finds boundaries of the kinds in `places`, and counts steps and tokens.

    `gap` is the setting `marker_gap`. No tokens may be fed after `finish`.
    """

    def __init__(
        self, markers: Sequence[str], places: frozenset[BoundaryKind], gap: int | None = None
    ) -> None:
        self._markers, self._places = markers, places
        self._gap = gap if BoundaryKind.GAP in places else None
        self._blank = False  # the text so far ends with a line end
        self._last = 0  # tokens at the last marker or its substitute
        self._segmenter = StepSegmenter(markers)
        self._layout = _Layout()
        self._quiet = _quiet_texts(tuple(markers), places)
        self._texts: list[str] = []  # one per token
        self._starts = array("Q")  # character offset at which each token starts
        self._characters = 0
        self._complete = 0  # tokens up to the last that completes its characters
        self._marked: list[int] = []  # tokens before each marker so far, ascending
        self._waiting: list[Found] = []
        self._count = 0
        self._finished = False

    @property
    def tokens(self) -> int:
        """Thinking tokens so far."""
        return len(self._texts)

    @property
    def complete(self) -> int:
        """Thinking tokens up to the last that completes its characters."""
        return self._complete

    @property
    def steps(self) -> int:
        """Number of steps k so far."""
        return self._segmenter.steps

    def feed(self, text: str) -> list[Found]:
        """Take the next token's text; return the boundaries that are now due, in order."""
        self._starts.append(self._characters)
        self._texts.append(text)
        self._characters += len(text)
        if text:
            self._complete = self.tokens
        for marker in self._segmenter.feed(text):
            cut = self._before(marker.start)
            self._marked.append(cut)
            self._last = cut
            self._find(BoundaryKind.MARKER, cut)
        if self._places & _LAYOUT:
            for place, end in self._layout.feed(text):
                self._find(place, self._after(end))
        if self._gap is not None:
            self._stand_in(text, self._gap)
        self._find(BoundaryKind.ANY, self._complete)
        return self._due(self.decided(self._places)) if self._waiting else []

    @property
    def settled(self) -> bool:
        """True if everything so far is decided: no later text can find a boundary in it."""
        return not self._places or (
            self._segmenter.undecided == self._characters
            and self._complete == len(self._texts)
            and self._layout.open_end is None
            and not self._waiting
        )

    def skip(self, texts: Sequence[str], begin: int, end: int) -> int:
        """Take the run of tokens from `begin`, before `end`, in which no boundary begins or ends.

        The result is that of `feed` for one after the other. Return their number, perhaps 0.
        """
        if not self.settled:
            return 0
        if self._places:
            quiet = self._quiet
            end = next((place for place in range(begin, end) if not quiet[texts[place]]), end)
        if end <= begin:
            return 0
        run = texts[begin:end]
        for each in run:
            self._starts.append(self._characters)
            self._characters += len(each)
        self._texts += run
        text = "".join(run)
        if not self._places:  # nothing acts on them: steps are counted, several tokens at once
            self._segmenter.feed(text)
            self._complete = self._last_complete()
            return len(run)
        self._complete = len(self._texts)
        self._segmenter.skip(text)
        self._layout.skip(text)
        self._blank = self._blank and not text.strip(" \t")
        return len(run)

    def _last_complete(self) -> int:
        places = range(len(self._texts), self._complete, -1)
        return next((place for place in places if self._texts[place - 1]), self._complete)

    def _stand_in(self, text: str, gap: int) -> None:
        """Let a token that ends a paragraph substitute for an overdue marker."""
        ends = (("\n" if self._blank else "") + text).rstrip(" \t").endswith("\n\n")
        if text.strip(" \t"):
            self._blank = text.rstrip(" \t").endswith("\n")
        if ends and self.tokens - self._last > gap:
            self._last = self.tokens
            self._find(BoundaryKind.GAP, self.tokens)

    def finish(self) -> list[Found]:
        """Return the boundaries that still wait when the thinking has ended; its end is none."""
        self._segmenter.finish()
        self._finished = True
        return self._due(self.tokens)

    def decided(self, places: frozenset[BoundaryKind]) -> int:
        """Return the number of tokens before which no further boundary at `places` can appear."""
        decided = self.tokens
        if BoundaryKind.MARKER in places and not self._finished and self._open_end():
            decided = min(decided, self._before(self._segmenter.undecided))
        if BoundaryKind.SENTENCE in places and self._layout.open_end is not None:
            decided = min(decided, self._after(self._layout.open_end))
        if BoundaryKind.ANY in places:
            decided = min(decided, self._complete)
        return decided

    def text(self, begin: int, end: int) -> str:
        """Return the text of the tokens from `begin` to `end` (exclusive)."""
        return "".join(self._texts[begin:end])

    def steps_before(self, tokens: int) -> int:
        """Return k of the first `tokens` thinking tokens, by the markers found so far."""
        return 1 + bisect_left(self._marked, tokens)

    def steps_of(self, tokens: int) -> int:
        """Return k of the first `tokens` thinking tokens as a text of their own."""
        return count_steps(self.text(0, tokens), self._markers)

    def account(self, thinking: ThinkingFormat, *, cut: int | None, ended: bool) -> tuple[int, int]:
        """Return steps and tokens of thinking that was `cut` after so many tokens, or `ended`."""
        if cut is not None:
            return self.steps_of(cut), cut + thinking.thought_in_closing
        return self.steps if self.tokens or ended else 0, self.tokens

    def _open_end(self) -> bool:
        """Return whether the last token is undecided: a fast check before the exact search."""
        return self._segmenter.undecided < self._characters or self._complete < self.tokens

    def _find(self, place: BoundaryKind, tokens: int) -> None:
        if place in self._places:
            insort(self._waiting, Found(tokens, self._count, place, self.tokens))
            self._count += 1

    def _due(self, decided: int) -> list[Found]:
        number = bisect_right(self._waiting, decided, key=lambda found: found.tokens)
        due, self._waiting = self._waiting[:number], self._waiting[number:]
        return due

    def _before(self, offset: int) -> int:
        """Return the index of the first token that carries a part of the character at `offset`."""
        index = bisect_left(self._starts, offset)
        starts_there = index < self.tokens and self._starts[index] == offset
        if not starts_there and offset < self._characters:
            index -= 1  # the character is inside a token
        return bisect_left(self._starts, self._starts[index])  # textless ones carry first bytes

    def _after(self, offset: int) -> int:
        """Return the number of tokens that complete the characters before `offset`."""
        return bisect_right(self._starts, offset - 1)


def step_starts(
    ids: Sequence[int],
    texts: Sequence[str],
    thinking: ThinkingFormat,
    *,
    markers: Sequence[str],
    thinking_open: bool = False,
    thinking_implied: bool = False,
) -> tuple[int, ...]:
    """Return the number of completion tokens before each step marker, ascending.

    A controller that is fed `ids` with their `texts` cuts at these positions. After t tokens, k is
    1 + the number of positions below t. `thinking_open`: the prompt ends in ``<think>``.
    `thinking_implied`: the thinking begins without a start.
    """
    marks = ThinkTokenMatcher(thinking, implied=thinking_implied)
    begin = 0 if thinking_open else _beginning(marks, ids, texts)
    ending, found = Ending(thinking), list[Found]()
    finder = BoundaryFinder(markers, frozenset({BoundaryKind.MARKER}))
    for token, text in zip(ids[begin:], texts[begin:], strict=True):
        thought, ended = ending.take(token, text)
        found += [each for one in thought for each in finder.feed(one)]
        if ended:
            break
    else:
        found += [each for one in ending.rest() for each in finder.feed(one)]
    found += finder.finish()
    return tuple(begin + each.tokens for each in found)


def _beginning(marks: ThinkTokenMatcher, ids: Sequence[int], texts: Sequence[str]) -> int:
    """Return the index of the first thinking token; `len(ids)` without thinking."""
    for place, (token, text) in enumerate(zip(ids, texts, strict=True)):
        signal = marks.take(token, text)
        if signal is Signal.THINK_START:
            return place + 1
        if signal is not None:
            return 0 if signal is Signal.UNOPENED else len(ids)
    return len(ids)


class _QuietTexts(dict[str, bool]):
    """Whether no boundary can begin or end in a token, by its text.

    Nearly every token is quiet, and most tokens repeat: then the table takes the place of a search.
    """

    def __init__(self, markers: tuple[str, ...], places: frozenset[BoundaryKind]) -> None:
        super().__init__()
        self._markers, self._places = markers, places
        self._marks = _STOPS + _WIDE_STOPS if BoundaryKind.SENTENCE in places else ""
        if places & (_LAYOUT | {BoundaryKind.GAP}):
            self._marks += "\n"

    def __missing__(self, text: str) -> bool:
        quiet = (
            text != ""  # an incomplete character
            and BoundaryKind.ANY not in self._places
            and is_quiet(text, self._markers)
            and not any(mark in text for mark in self._marks)
        )
        if len(self) < _TABLE and len(text) <= _LONGEST:
            self[text] = quiet
        return quiet


_TABLE, _LONGEST = 300_000, 64
"""Entries of a table, which are more than vocabularies have, and the characters of one."""


@functools.lru_cache(maxsize=64)
def _quiet_texts(markers: tuple[str, ...], places: frozenset[BoundaryKind]) -> _QuietTexts:
    return _QuietTexts(markers, places)


class _Layout:
    """Finds ends of lines, paragraphs and sentences in chunked text; offsets follow the ends."""

    def __init__(self) -> None:
        self.open_end: int | None = None
        """Offset after a full stop and its closing quotes, while the next character decides."""
        self._offset = 0
        self._line_blank = True
        self._paragraph_blank = True
        self._sentence_blank = True

    def skip(self, text: str) -> None:
        """Take text without line ends and full stops; no full stop may be open."""
        self._offset += len(text)
        if not text.isspace():
            self._line_blank = self._paragraph_blank = self._sentence_blank = False

    def feed(self, text: str) -> list[tuple[BoundaryKind, int]]:
        found: list[tuple[BoundaryKind, int]] = []
        for character in text:
            self._decide(character, found)
            self._offset += 1
            if character == "\n":
                self._newline(found)
            elif not character.isspace():
                self._visible(character, found)
        return found

    def _decide(self, character: str, found: list[tuple[BoundaryKind, int]]) -> None:
        """Decide whether the full stop before `character` ended a sentence."""
        if self.open_end is None or character in _CLOSERS or character in _STOPS:
            return
        if character.isspace():
            found.append((BoundaryKind.SENTENCE, self.open_end))
            self._sentence_blank = True
        self.open_end = None

    def _newline(self, found: list[tuple[BoundaryKind, int]]) -> None:
        found.append((BoundaryKind.LINE, self._offset))
        if not self._sentence_blank:
            found.append((BoundaryKind.SENTENCE, self._offset))
        if self._line_blank and not self._paragraph_blank:
            found.append((BoundaryKind.PARAGRAPH, self._offset))
            self._paragraph_blank = True
        self._line_blank = self._sentence_blank = True

    def _visible(self, character: str, found: list[tuple[BoundaryKind, int]]) -> None:
        self._line_blank = self._paragraph_blank = self._sentence_blank = False
        if character in _WIDE_STOPS:
            found.append((BoundaryKind.SENTENCE, self._offset))
            self._sentence_blank = True
        elif character in _STOPS or self.open_end is not None:
            self.open_end = self._offset
