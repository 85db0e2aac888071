"""Finding where thinking begins in a stream of tokens."""

from stepgrpo_core.control.edges import Start
from stepgrpo_core.control.events import ThinkingFormat
from stepgrpo_core.control.states import Signal

__all__ = ["ThinkTokenMatcher"]


class ThinkTokenMatcher:
    """The start of one sequence's thinking.

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
        self._start = Start(thinking)
        self._visible = False

    def would_answer(self, token: int, text: str) -> bool:
        """Whether a token before any thinking, if it comes next, is of an answer."""
        if self.implied and (not self._may_answer or self._is_end(token)):
            return token in self._thinking.tool_ids
        return (self._visible or bool(text.strip())) and not self._start.goes_on(token, text)

    def may_be_answer(self, token: int) -> bool:
        """Whether a token of the thinking, if it comes next, is of an answer or may be."""
        return token in self._thinking.tool_ids or (self.doubtful and not self._is_end(token))

    def take(self, token: int, text: str) -> Signal | None:
        """Take a token before any thinking; what it begins, if it does."""
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
        """Whether a token, which may have no text, is an end of thinking by itself."""
        return token == self._thinking.end_id and not self._thinking.before_end
