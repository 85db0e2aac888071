"""`repetition`: close the thinking when it loops (DEER 2504.15895; vLLM's own detection ends the
whole request instead).

At sentence ends. Chunks are what stands between them, or up to eight such together, compared
without the white space around. Default: three identical ones in a row, as in DEER.

Departures: DEER's chunks are what stands between its markers, which a loop need not have. A loop
of fewer than 16 characters a turn is let be, as a column of equal numbers is none; so is one
without any sentence or line end, which a budget ends. Both bounds are ours.
"""

from collections import deque

from stepgrpo_core.policies.base import Boundary, BoundaryKind, ExitReason, Needs, Verdict
from stepgrpo_core.policies.probes import Answer
from stepgrpo_core.policies.settings import ExitSettings

__all__ = ["RepetitionPolicy"]

LONGEST = 8  # sentences in one turn of a loop
SHORTEST = 16  # characters


class RepetitionPolicy:
    """Exits when the last chunks are the same."""

    def __init__(self, settings: ExitSettings) -> None:
        self._settings = settings
        self._recent: deque[str] = deque(maxlen=LONGEST)
        self._runs = dict.fromkeys(range(1, LONGEST + 1), 0)
        # Sentences in a row that equal the one so many before.

    @property
    def needs(self) -> Needs:
        """The text."""
        return Needs(frozenset({BoundaryKind.SENTENCE}), self._settings.min_tokens)

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Exit if the newest sentence completes a repetition."""
        del answer
        sentence = boundary.text.strip()
        turns = self._settings.repetition_chunks - 1  # repeats of the first
        looping = False
        for period in range(1, LONGEST + 1):
            same = len(self._recent) >= period and self._recent[-period] == sentence
            self._runs[period] = self._runs[period] + 1 if same else 0
            if self._runs[period] >= turns * period:
                looping = looping or self._characters(period) >= SHORTEST
        self._recent.append(sentence)
        return Verdict(ExitReason.REPETITION if looping else None)

    def _characters(self, sentences: int) -> int:
        """In the last `sentences`, before the newest: one turn of a loop of that length."""
        return sum(map(len, list(self._recent)[-sentences:]))
