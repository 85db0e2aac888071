"""Prediction intervals that hold, whatever the predictor: split-conformal.

A prediction's quantiles may be off, because today's prompts are others than the calibration's, or
because the requests that exit are not like those that do not. Pairs, whose outcome was measured,
tell by how much: the score of a pair is how far its outcome lies outside the predicted interval,
negative inside. Widened by the score's quantile an interval holds the next outcome with the asked
probability, as long as the next is exchangeable with the pairs (Romano, Patterson, Candès 2019,
Conformalized Quantile Regression). Whether that is so is watched: `coverage` of what was shown.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stepgrpo_core.savings.baseline import LEVEL, Prediction
from stepgrpo_core.savings.intervals import wilson

__all__ = ["BAND", "MIN_PAIRS", "Coverage", "coverage", "score", "widened", "widening"]

MIN_PAIRS = 20
"""Scores below which nothing is widened, and outcomes below which nothing is called stale: of 19
the greatest is the quantile of 95 %, and of fewer there is none."""
BAND = 0.05
"""How far the coverage may be from the level, before the predictions are stale."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often intervals that were shown held what was then measured, with a 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def stale(self) -> bool:
        """Whether it lies outside its band for sure: predictions are of another time."""
        return self.high < LEVEL - BAND or self.low > LEVEL + BAND


def score(prediction: Prediction, outcome: float) -> float:
    """Tokens by which `outcome` is outside the predicted interval; negative inside."""
    return max(prediction.low - outcome, outcome - prediction.high)


def widening(scores: Sequence[float]) -> float:
    """Tokens to put on both ends of an interval, negative to take them off; 0 with too few
    scores."""
    rank = math.ceil((len(scores) + 1) * LEVEL)
    return sorted(scores)[rank - 1] if MIN_PAIRS <= len(scores) >= rank else 0.0


def widened(prediction: Prediction, by: float) -> Prediction:
    """The prediction with `by` tokens on both ends, which never pass it."""
    return Prediction(
        prediction.tokens,
        min(prediction.low - by, prediction.tokens),
        max(prediction.high + by, prediction.tokens),
    )


def coverage(held: Sequence[float]) -> Coverage | None:
    """Of outcomes, 1 where the interval held it and 0 where not; None with too few."""
    if len(held) < MIN_PAIRS:
        return None
    share = sum(held) / len(held)
    return Coverage(share, *wilson(share, len(held)))
