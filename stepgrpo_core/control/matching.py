"""Finds where thinking begins in a stream of tokens."""

from stepgrpo_core.control.edges import Start
from stepgrpo_core.control.events import ThinkingFormat
from stepgrpo_core.control.states import Signal

__all__ = ["ThinkTokenMatcher"]


class ThinkTokenMatcher:
    """Matches the start of one sequence's thinking.

    With `implied`, the first visible token begins the thinking as well. With `may_answer`, text
    that then has no end either is an answer.
    """

    def __init__(
        self, thinking: ThinkingFormat, *, implied: bool = False, may_answer: bool = False
    ) -> None:
        self.implied = implied
        self.doubtful = False
        """True if the text that began the thinking may be an answer."""
        self._may_answer = may_answer
        self.held: list[tuple[int, str]] = []
        """Ids and texts of the tokens so far, if the thinking begins without a start."""
        self._thinking = thinking
        self._start = Start(thinking)
        self._visible = False

    def would_answer(self, token: int, text: str) -> bool:
        """Return whether a token before any thinking, if it comes next, is part of an answer."""
        if self.implied and (not self._may_answer or self._is_end(token)):
            return token in self._thinking.tool_ids
        return (self._visible or bool(text.strip())) and not self._start.continues(token, text)

    def may_be_answer(self, token: int) -> bool:
        """Return whether a token of the thinking, if it comes next, may be part of an answer."""
        return token in self._thinking.tool_ids or (self.doubtful and not self._is_end(token))

    def take(self, token: int, text: str) -> Signal | None:
        """Take a token before any thinking; return the signal of what it begins, or None."""
        if self._start.feed(token, text):
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
        """Return whether a token ends thinking by itself; it may have no text."""
        return token == self._thinking.end_id and not self._thinking.before_end
