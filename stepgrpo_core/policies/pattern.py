r"""`pattern`: exit when a regular expression matches the reasoning, as in "Done\." (asked for in
vllm#42487).

At sentence and line ends. The expression is searched in the current line so far, without its
newline; of a longer line only in the last 1 024 characters, so ``^`` may then match inside the
line. Each character is searched at most 1 024 times, and a match across a line end is not found.
There is no default pattern.

Drivers compile the `Matcher` with `stepgrpo_core.patterns`.
"""

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.policies.base import Boundary, BoundaryKind, ExitReason, Matcher, Needs, Verdict
from stepgrpo_core.policies.probes import Answer
from stepgrpo_core.policies.settings import ExitSettings

__all__ = ["PatternPolicy"]

WINDOW = 1024  # characters


class PatternPolicy:
    """Exits at the first sentence or line end whose line matches."""

    def __init__(self, settings: ExitSettings, matcher: Matcher | None = None) -> None:
        if matcher is None:
            remedy = r"policy pattern needs a regular expression of RE2, such as 'Done\.'"
            raise InvalidSetting("pattern", settings.pattern, remedy)
        self._settings = settings
        self._matcher = matcher
        self._line = ""

    @property
    def needs(self) -> Needs:
        """Request the text at sentence and line ends."""
        return Needs(
            frozenset({BoundaryKind.SENTENCE, BoundaryKind.LINE}), self._settings.min_tokens
        )

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Exit if a line matches that ends at this boundary or contains it."""
        del answer
        *ended, self._line = (self._line + boundary.text).split("\n")
        self._line = self._line[-WINDOW:]
        found = any(self._matcher.search(line[-WINDOW:]) for line in (*ended, self._line))
        return Verdict(ExitReason.PATTERN if found else None)
