"""`consistency`: exit when successive induced answers agree (Dynasor 2412.20993).

An answer is induced every N tokens. The thinking ends when the last w answers are not empty, have
equal values, and contain no hesitation marker. Defaults by level, (w, N): mild (8, 64), low (5,
64), mid (3, 64), high (2, 64), max (2, 32).

Departures: the final answer is generated anew, where the authors reuse the probe's; agreement is
checked, where the check in their code is always true; hesitation markers must be whole words
outside the answer ("know" is not one, nor is the answer "no"); the inducing prompt is that of
`confidence`. Equality is that of `sameness` without formulas: numbers, units, lists and spelling.
"""

import re
from collections import deque

from stepgrpo_core.answers import last_box
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.policies.base import Boundary, BoundaryKind, ExitReason, Needs, Verdict
from stepgrpo_core.policies.probes import Answer, Induce, InducedAnswer
from stepgrpo_core.policies.settings import ExitSettings
from stepgrpo_core.sameness import same_value

__all__ = ["LEVELS", "ConsistencyPolicy"]

LEVELS: dict[str, tuple[int, int]] = {
    "mild": (8, 64),
    "low": (5, 64),
    "mid": (3, 64),
    "high": (2, 64),
    "max": (2, 32),
}
"""(w, N): number of answers that must agree, and tokens between them."""

_HESITATION = re.compile(r"\b(?:wait|hold|but|okay|no|hmm)\b", re.IGNORECASE)


class ConsistencyPolicy:
    """Exits when the last w induced answers agree."""

    def __init__(self, settings: ExitSettings) -> None:
        if settings.consistency not in LEVELS:
            levels = ", ".join(LEVELS)
            raise InvalidSetting("consistency", settings.consistency, f"use one of {levels}")
        self._settings = settings
        self._window, self._interval = LEVELS[settings.consistency]
        if settings.max_probes < self._window:
            remedy = f"consistency={settings.consistency!r} compares {self._window} induced answers"
            raise InvalidSetting("max_probes", settings.max_probes, f"{remedy}; allow that many")
        self._last: deque[str | None] = deque(maxlen=self._window)

    @property
    def needs(self) -> Needs:
        """Request an induced answer every N tokens, the first after N."""
        settings = self._settings
        return Needs(
            frozenset({BoundaryKind.ANY}),
            max(settings.min_tokens, self._interval),
            Induce(settings.inducing_prompt, settings.probe_max_tokens),
            max(settings.min_interval, self._interval),
        )

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Exit if this answer and the w - 1 before it agree.

        The confidence is the share of the window that agrees with this answer.
        """
        del boundary
        assert isinstance(answer, InducedAnswer)
        self._last.append(_settled_answer(self._settings.inducing_prompt, answer.text))
        agreeing = _agreeing(self._last)
        done = agreeing == self._window
        return Verdict(ExitReason.CONSISTENT if done else None, agreeing / self._window)


def _agreeing(answers: deque[str | None]) -> int:
    """Return how many answers at the end equal the last one; 0 if the last is None."""
    newest, count = answers[-1], 0
    for each in reversed(answers):
        if newest is None or each is None or not same_value(each, newest):
            break
        count += 1
    return count


def _settled_answer(inducing_prompt: str, text: str) -> str | None:
    """Return the answer in an induced text; None if it is empty or beside a hesitation marker."""
    text = text.partition("</think>")[0]
    box = last_box(inducing_prompt + text)
    answer = text if box is None else box
    around = text if box is None else text.replace(box, " ", 1)
    if not answer.strip() or _HESITATION.search(around):
        return None
    return answer
