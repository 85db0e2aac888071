"""Finding the start and the end of thinking in a stream of token ids."""

from collections.abc import Sequence

from stepgrpo_core.events import ThinkingFormat
from stepgrpo_core.states import Signal

__all__ = ["Marks", "SequenceFinder"]


class SequenceFinder:
    """Looks for one sequence of ids among those that it is fed."""

    def __init__(self, sequence: Sequence[int]) -> None:
        self.open = 0
        """How many of the last ids may be the beginning of one."""
        self._sequence = tuple(sequence)
        self._recent: tuple[int, ...] = ()

    def feed(self, token: int) -> bool:
        """Take the next id; whether it completes the sequence."""
        size = len(self._sequence)
        if size == 1:  # what nearly all models write, for every token of theirs
            return token == self._sequence[0]
        self._recent = (*self._recent, token)[-size:]
        fitting = (n for n in range(len(self._recent), 0, -1) if self._begins_with_last(n))
        self.open = next(fitting, 0)
        if self.open < size:
            return False
        self.open, self._recent = 0, ()
        return True

    def goes_on(self, token: int) -> bool:
        """Whether the next id, if it is this, may be of the sequence."""
        return token == self._sequence[self.open] or token == self._sequence[0]

    def _begins_with_last(self, number: int) -> bool:
        return self._recent[-number:] == self._sequence[:number]


class Marks:
    """The start and the end of one sequence's thinking.

    `implied` says that the thinking needs no start: the first visible token begins it, too;
    `may_answer` that what then has no end either was an answer.
    """

    def __init__(
        self, thinking: ThinkingFormat, *, implied: bool = False, may_answer: bool = False
    ) -> None:
        self.implied = implied
        self.doubtful = False
        """Whether what has begun may be an answer."""
        self._may_answer = may_answer
        self.held: list[tuple[int, str]] = []
        """What has come instead of a start: ids and texts, of a thinking that needs none."""
        self._thinking = thinking
        self._start = SequenceFinder((*thinking.before_start, thinking.start_id))
        self._end = SequenceFinder((*thinking.before_end, thinking.end_id))
        self._visible = False
        self.ends = self._end.feed
        """Whether a token of the thinking completes its end."""

    def would_answer(self, token: int, text: str) -> bool:
        """Whether a token before any thinking, if it comes next, is of an answer."""
        if self.implied and (not self._may_answer or self._is_end(token)):
            return token in self._thinking.tool_ids
        return (self._visible or bool(text.strip())) and not self._start.goes_on(token)

    def may_be_answer(self, token: int) -> bool:
        """Whether a token of the thinking, if it comes next, is of an answer or may be."""
        return token in self._thinking.tool_ids or (self.doubtful and not self._is_end(token))

    def take(self, token: int, text: str) -> Signal | None:
        """Take a token before any thinking; what it begins, if it does."""
        if self._start.feed(token):
            return Signal.THINK_START
        if self.implied:
            self.held.append((token, text))
        self._visible = self._visible or bool(text.strip())
        if self.implied and token in self._thinking.tool_ids:
            return Signal.OTHER_TEXT
        if self._start.open or not (self._visible or (self.implied and self._is_end(token))):
            return None
        self.doubtful = self.implied and self._may_answer
        return Signal.UNOPENED if self.implied else Signal.OTHER_TEXT

    def _is_end(self, token: int) -> bool:
        """Whether a token, which may have no text, is an end of thinking by itself."""
        return token == self._thinking.end_id and not self._thinking.before_end
