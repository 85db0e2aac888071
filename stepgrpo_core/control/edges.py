"""Matchers for the start and the end of thinking in a stream, by tokens or by text."""

from collections.abc import Sequence

from stepgrpo_core.control.events import ThinkingFormat

__all__ = ["Ending", "SequenceFinder", "Start"]


class SequenceFinder:
    """Looks for one sequence of ids in a stream of ids."""

    def __init__(self, sequence: Sequence[int]) -> None:
        self.open = 0
        """Number of the last ids that may begin the sequence."""
        self._sequence = tuple(sequence)
        self._recent: tuple[int, ...] = ()

    def feed(self, token: int) -> bool:
        """Take the next id; return whether it completes the sequence."""
        size = len(self._sequence)
        if size == 1:  # fast path: true of nearly all models, and this runs for every token
            return token == self._sequence[0]
        self._recent = (*self._recent, token)[-size:]
        fitting = (n for n in range(len(self._recent), 0, -1) if self._begins_with_last(n))
        self.open = next(fitting, 0)
        if self.open < size:
            return False
        self.open, self._recent = 0, ()
        return True

    def continues(self, token: int) -> bool:
        """Return whether `token`, if it comes next, may belong to the sequence."""
        return token == self._sequence[self.open] or token == self._sequence[0]

    def _begins_with_last(self, number: int) -> bool:
        return self._recent[-number:] == self._sequence[:number]


class Start:
    """Looks for the start of thinking: its tokens, or its text after nothing but white space."""

    def __init__(self, thinking: ThinkingFormat) -> None:
        self._sequence = SequenceFinder((*thinking.before_start, thinking.start_id))
        self._text = thinking.start_text.rstrip()
        self._seen = ""

    @property
    def open(self) -> bool:
        """True if the visible text so far, or the last tokens, may begin the start."""
        if self._text:
            return bool(self._seen) and self._text.startswith(self._seen)
        return bool(self._sequence.open)

    def feed(self, token: int, text: str) -> bool:
        """Take the next token; return whether it completes the start."""
        if not self._text:
            return self._sequence.feed(token)
        self._seen = (self._seen + text).lstrip()
        return self._seen.startswith(self._text)

    def continues(self, token: int, text: str) -> bool:
        """Return whether a token, if it comes next, may belong to the start."""
        if not self._text:
            return self._sequence.continues(token)
        seen = (self._seen + text).strip()
        return self._text.startswith(seen) or seen.startswith(self._text)


class Ending:
    """Separates the tokens of the thinking from those that end it.

    The thinking ends with its end token or text, or with the start of a tool call. Tokens that may
    begin one of these wait until later tokens decide, so no cut ever falls inside.
    """

    def __init__(self, thinking: ThinkingFormat) -> None:
        self._thinking = thinking
        ends = ((*thinking.before_end, thinking.end_id), *thinking.tool_starts)
        self._finders = tuple(SequenceFinder(each) for each in ends)
        self._sizes = tuple(map(len, ends))
        self._texts = tuple(filter(None, (thinking.end_text.strip(), *thinking.tool_texts)))
        self._plain = self._sizes == (1,) and not self._texts
        self._edges = thinking.tool_ids | {thinking.end_id}
        self._waiting: list[str] = []

    def take(self, token: int, text: str) -> tuple[Sequence[str], bool]:
        """Take the next token; return the texts of tokens that are now known to be thinking, and
        whether the thinking has ended."""
        if self._texts:
            return self._take_text(text)
        if token in self._thinking.tool_ids:
            return self._release(0), True
        if self._plain:  # fast path: true of nearly all models, and this runs for every token
            return ((), True) if token == self._thinking.end_id else ((text,), False)
        return self._take_sequence(token, text)

    def thought(self, ids: Sequence[int], begin: int) -> int:
        """Return the end of the run of `ids` from `begin` on that is surely thinking."""
        edges = self._edges
        if not self._plain:
            return begin
        if edges.isdisjoint(ids):  # the case for nearly all
            return len(ids)
        places = (place for place in range(begin, len(ids)) if ids[place] in edges)
        return next(places, len(ids))

    def rest(self) -> Sequence[str]:
        """Return the texts that still wait when the stream is over: they were thinking."""
        return self._release(0)

    def _take_sequence(self, token: int, text: str) -> tuple[Sequence[str], bool]:
        self._waiting.append(text)
        sized = zip(self._finders, self._sizes, strict=True)
        found = [size for each, size in sized if each.feed(token)]
        if found:
            thought = self._waiting[: len(self._waiting) - max(found)]
            return thought, True
        return self._release(max(each.open for each in self._finders)), False

    def _take_text(self, text: str) -> tuple[Sequence[str], bool]:
        self._waiting.append(text)
        joined = "".join(self._waiting)
        places = [place for each in self._texts if (place := joined.find(each)) >= 0]
        if places:
            return self._before(min(places)), True
        begun = max(_beginning(joined, each) for each in self._texts)
        kept = len(self._before(len(joined) - begun, whole=True)) if begun else len(self._waiting)
        return self._release(len(self._waiting) - kept), False

    def _before(self, place: int, *, whole: bool = False) -> list[str]:
        """Return the texts of waiting tokens before an offset.

        A token across the offset is cut there, or left out if the part before is blank or if only
        `whole` tokens are wanted.
        """
        found: list[str] = []
        for text in self._waiting:
            if place <= 0:
                break
            if len(text) > place and (whole or not text[:place].strip()):
                break
            found.append(text[:place])
            place -= len(text)
        return found

    def _release(self, keep: int) -> Sequence[str]:
        """Stop waiting for all tokens but the last `keep`; return their texts."""
        at = len(self._waiting) - keep
        thought, self._waiting = self._waiting[:at], self._waiting[at:]
        return thought


def _beginning(text: str, mark: str) -> int:
    """Return how many characters at the end of `text` may begin `mark`."""
    sizes = range(min(len(text), len(mark) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(mark[:size])), 0)
