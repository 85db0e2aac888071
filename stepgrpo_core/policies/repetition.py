"""`repetition`: close the thinking when it loops (DEER 2504.15895; vLLM's own detection ends the
whole request instead).

At sentence ends, a chunk is one to eight sentences, compared without surrounding white space.
Default: three identical chunks in a row, as in DEER. Every 32 tokens, cycles of 1 to 128 tokens are
looked for as well, because a loop may have no sentence end (vllm#52673): as many copies in a row,
over at least 128 tokens.

Departures: DEER's chunks are the text between its markers, which a loop may not have. Chunks of
fewer than 16 characters are ignored, because a column of equal numbers is not a loop; nor is a
short row of zeros, so a cycle of few tokens needs more copies. Tokens are compared by their text.
All bounds except the three chunks are ours.
"""

from collections import deque

from stepgrpo_core.policies.base import Boundary, BoundaryKind, ExitReason, Needs, Verdict
from stepgrpo_core.policies.probes import Answer
from stepgrpo_core.policies.settings import ExitSettings

__all__ = ["RepetitionPolicy"]

MAX_SENTENCES = 8  # per chunk
MIN_CHARACTERS = 16  # per chunk
MAX_PERIOD = 128  # tokens of a cycle
MIN_TOKENS = 128  # of all copies of a cycle
CHECK_EVERY = 32  # tokens


class RepetitionPolicy:
    """Exits when the last chunks are the same, or the last tokens a cycle."""

    def __init__(self, settings: ExitSettings) -> None:
        self._settings = settings
        self._recent: deque[str] = deque(maxlen=MAX_SENTENCES)
        # Consecutive sentences that equal the one `period` before, by period.
        self._runs = dict.fromkeys(range(1, MAX_SENTENCES + 1), 0)
        self._sentence: list[str] = []
        self._token = ""
        self._tokens: deque[str] = deque(maxlen=MAX_PERIOD * settings.repetition_chunks)
        self._since_check = 0

    @property
    def needs(self) -> Needs:
        """Request the text at sentence ends and after tokens."""
        kinds = frozenset({BoundaryKind.SENTENCE, BoundaryKind.ANY})
        return Needs(kinds, self._settings.min_tokens)

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Exit if the newest sentence or token completes a repetition."""
        del answer
        self._sentence.append(boundary.text)
        self._token += boundary.text
        if boundary.kind is BoundaryKind.SENTENCE:
            looping = self._repeats("".join(self._sentence).strip())
            self._sentence.clear()
        else:
            self._tokens.append(self._token)
            self._token = ""
            looping = self._cycles()
        return Verdict(ExitReason.REPETITION if looping else None)

    def _repeats(self, sentence: str) -> bool:
        """Take a sentence; return whether it completes identical chunks."""
        repeats = self._settings.repetition_chunks - 1  # of the first chunk
        looping = False
        for period in range(1, MAX_SENTENCES + 1):
            same = len(self._recent) >= period and self._recent[-period] == sentence
            self._runs[period] = self._runs[period] + 1 if same else 0
            if self._runs[period] >= repeats * period:
                looping = looping or self._characters(period) >= MIN_CHARACTERS
        self._recent.append(sentence)
        return looping

    def _characters(self, sentences: int) -> int:
        """Return the number of characters in the last `sentences` before the newest."""
        return sum(map(len, list(self._recent)[-sentences:]))

    def _cycles(self) -> bool:
        """Return whether the last tokens are copies of one cycle."""
        self._since_check += 1
        if self._since_check < CHECK_EVERY:
            return False
        self._since_check = 0
        tokens, copies = [*self._tokens], self._settings.repetition_chunks
        for period in range(1, MAX_PERIOD + 1):
            length = max(copies * period, MIN_TOKENS)
            if length <= len(tokens) and tokens[-length + period :] == tokens[-length:-period]:
                return any(each.strip() for each in tokens[-period:])
        return False
