"""Split-conformal prediction intervals, valid for any predictor.

A prediction's quantiles may be wrong because today's prompts differ from the calibration's, or
because requests that exit differ from those that do not. Pairs have a measured outcome: the score
of a pair is the distance of its outcome from the predicted interval, negative inside. An interval
widened by the quantile of the scores contains the next outcome with the nominal probability, if the
next request is exchangeable with the pairs (Romano, Patterson, Candès 2019, Conformalized Quantile
Regression). `coverage` of the intervals shown so far checks that assumption.
"""

import math
from collections.abc import Sequence

from stepgrpo_core.savings.baseline import LEVEL, Prediction
from stepgrpo_core.savings.intervals import Estimate, wilson

__all__ = ["BAND", "MIN_PAIRS", "Coverage", "coverage", "score", "widened", "widening"]

MIN_PAIRS = 20
"""Minimum number of scores before intervals are widened, and of outcomes before predictions are
called stale."""
BAND = 0.05
"""Largest distance of the coverage from the level at which predictions are not stale."""


class Coverage(Estimate):
    """Share of shown intervals that contained the outcome measured later, with a 95 % interval."""

    __slots__ = ()

    @property
    def stale(self) -> bool:
        """Return whether the whole interval is outside the band: the calibration is out of date."""
        return self.high < LEVEL - BAND or self.low > LEVEL + BAND


def score(prediction: Prediction, outcome: float) -> float:
    """Return the tokens by which `outcome` is outside the predicted interval; negative inside."""
    return max(prediction.low - outcome, outcome - prediction.high)


def widening(scores: Sequence[float]) -> float:
    """Return the tokens to widen both ends of an interval by; negative narrows it.

    Returns 0 for fewer than `MIN_PAIRS` scores.
    """
    rank = math.ceil((len(scores) + 1) * LEVEL)
    return sorted(scores)[rank - 1] if MIN_PAIRS <= len(scores) >= rank else 0.0


def widened(prediction: Prediction, by: float) -> Prediction:
    """Return the prediction with both ends moved out by `by` tokens, never past the prediction."""
    return Prediction(
        prediction.tokens,
        min(prediction.low - by, prediction.tokens),
        max(prediction.high + by, prediction.tokens),
    )


def coverage(covered: Sequence[float]) -> Coverage | None:
    """Return the coverage over outcomes, each 1 if its interval contained it; None if too few."""
    if len(covered) < MIN_PAIRS:
        return None
    share = sum(covered) / len(covered)
    return Coverage(share, *wilson(share, len(covered)))
