"""Selection of a threshold: the cheapest whose risk is proved to be under a bound.

Learn then Test (Angelopoulos et al. 2021) with fixed-sequence testing: thresholds are tested from
the safest to the cheapest, each at level delta, until one fails. The last that passed has a risk of
at most epsilon with probability 1 - delta over the draw of the questions. Picking the cheapest
threshold whose *observed* risk is under epsilon has no such guarantee: it selects by luck.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.risk.testing import p_value, upper_bound
from stepgrpo_core.risk.traces import Loss, Trace, require_gold, risk_by_question, tokens_left

__all__ = ["Candidate", "Selection", "questions_needed", "select_threshold"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One threshold on the calibration questions."""

    threshold: float
    risk: float
    """Observed, from 0 to 1."""
    bound: float
    """Upper bound of the risk at this confidence, for this threshold alone."""
    p_value: float
    tokens_left: float
    """Thinking tokens with exits over those without."""
    valid: bool
    """It and all safer thresholds passed their test."""


@dataclass(frozen=True, slots=True)
class Selection:
    """All candidates, the safest first, and the one to use."""

    loss: Loss
    epsilon: float
    delta: float
    questions: int
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate | None:
        """Return the cheapest valid candidate, or None."""
        valid = [each for each in self.candidates if each.valid]
        return valid[-1] if valid else None

    @property
    def least_epsilon(self) -> float:
        """Return the smallest epsilon for which the safest candidate would be valid."""
        return self.candidates[0].bound


def questions_needed(epsilon: float, delta: float) -> int:
    """Return how many questions without one failure prove a risk of at most `epsilon`.

    45 prove 5 % and 114 prove 2 % with delta 0.1; every failure takes more. Raises InvalidSetting.
    """
    _check(epsilon, delta)
    return math.ceil(math.log(delta) / math.log1p(-epsilon))


def select_threshold(
    traces: Sequence[Trace],
    thresholds: Iterable[float],
    *,
    loss: Loss = "changed",
    epsilon: float = 0.02,
    delta: float = 0.1,
) -> Selection:
    """Return every threshold's risk and the cheapest that is valid.

    The order of the tests is fixed before the data are seen: the highest threshold comes first.
    Raises InvalidSetting for bounds outside (0, 1) and InvalidCalibration for missing answers.
    """
    _check(epsilon, delta)
    require_gold(traces, loss)
    found: list[Candidate] = []
    valid = bool(traces)
    for threshold in sorted(set(thresholds), reverse=True):
        losses = risk_by_question(traces, threshold, loss)
        p = p_value(losses, epsilon)
        valid = valid and p <= delta
        exited, full = (sum(each.values()) for each in tokens_left(traces, threshold))
        found.append(
            Candidate(
                threshold,
                risk=math.fsum(losses) / max(len(losses), 1),
                bound=upper_bound(losses, delta),
                p_value=p,
                tokens_left=exited / full if full else 1.0,
                valid=valid,
            )
        )
    if not found:
        raise InvalidSetting("thresholds", [], "give at least one threshold")
    questions = len({each.question for each in traces})
    return Selection(loss, epsilon, delta, questions, tuple(found))


def _check(epsilon: float, delta: float) -> None:
    for name, value in (("epsilon", epsilon), ("delta", delta)):
        if not 0 < value < 1:
            raise InvalidSetting(name, value, "use a number between 0 and 1")
