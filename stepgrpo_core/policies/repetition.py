"""`repetition`: close the thinking when it loops (DEER 2504.15895; vLLM's own detection ends the
whole request instead).

At sentence ends. A chunk is one to eight sentences, compared without surrounding white space.
Default: three identical chunks in a row, as in DEER.

Departures: DEER's chunks are the text between its markers, which a loop may not have. Chunks of
fewer than 16 characters are ignored, because a column of equal numbers is not a loop. A loop
without any sentence or line end is left to `budget`. Both bounds are ours.
"""

from collections import deque

from stepgrpo_core.policies.base import Boundary, BoundaryKind, ExitReason, Needs, Verdict
from stepgrpo_core.policies.probes import Answer
from stepgrpo_core.policies.settings import ExitSettings

__all__ = ["RepetitionPolicy"]

MAX_SENTENCES = 8  # per chunk
MIN_CHARACTERS = 16  # per chunk


class RepetitionPolicy:
    """Exits when the last chunks are the same."""

    def __init__(self, settings: ExitSettings) -> None:
        self._settings = settings
        self._recent: deque[str] = deque(maxlen=MAX_SENTENCES)
        # Consecutive sentences that equal the one `period` before, by period.
        self._runs = dict.fromkeys(range(1, MAX_SENTENCES + 1), 0)

    @property
    def needs(self) -> Needs:
        """Request the text at sentence ends."""
        return Needs(frozenset({BoundaryKind.SENTENCE}), self._settings.min_tokens)

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Exit if the newest sentence completes a repetition."""
        del answer
        sentence = boundary.text.strip()
        repeats = self._settings.repetition_chunks - 1  # of the first chunk
        looping = False
        for period in range(1, MAX_SENTENCES + 1):
            same = len(self._recent) >= period and self._recent[-period] == sentence
            self._runs[period] = self._runs[period] + 1 if same else 0
            if self._runs[period] >= repeats * period:
                looping = looping or self._characters(period) >= MIN_CHARACTERS
        self._recent.append(sentence)
        return Verdict(ExitReason.REPETITION if looping else None)

    def _characters(self, sentences: int) -> int:
        """Return the number of characters in the last `sentences` before the newest."""
        return sum(map(len, list(self._recent)[-sentences:]))
