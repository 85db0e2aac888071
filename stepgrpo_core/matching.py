"""Finding the start of thinking in a stream of tokens."""

from stepgrpo_core.edges import Start
from stepgrpo_core.events import ThinkingFormat

__all__ = ["Marks"]


class Marks:
    """The start of one sequence's thinking."""

    def __init__(self, thinking: ThinkingFormat) -> None:
        self._start = Start(thinking)
        self._visible = False

    @property
    def answers(self) -> bool:
        """Whether something visible has come instead of a start."""
        return self._visible and not self._start.open

    def would_answer(self, token: int, text: str) -> bool:
        """Whether a token before any thinking, if it comes next, is visible and no start."""
        return (self._visible or bool(text.strip())) and not self._start.goes_on(token, text)

    def starts(self, token: int, text: str) -> bool:
        """Whether a token before any thinking completes its start."""
        if self._start.feed(token, text):
            return True
        self._visible = self._visible or bool(text.strip())
        return False
