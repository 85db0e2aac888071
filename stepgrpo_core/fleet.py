"""What exits saved over many requests, from sums alone.

Requests of one conversation are alike, so they are not independent draws. Conversations are dealt
into random groups (`holdout.GROUPS`) and only sums per group are kept: a few hundred numbers,
whatever the traffic, which add up over processes and restarts. Every interval is the jackknife's:
the figure is computed again without each group, and the spread of those gives the error, with
Student's t of as many degrees of freedom (Wolter 2007, Introduction to Variance Estimation, ch. 2
and 4).

`compare`: randomised holdout. Some conversations were served without exits; the difference of the
two means is what exits saved per request. A prediction that is made before the request is decided
is as likely to be high on either side, so what it explains of the lengths is taken out (Deng et al.
2013, CUPED; Lin 2013: a slope for each side). A wrong prediction costs no bias, only precision.

`total_savings`: difference estimator over all requests that could exit (Cochran 1977, 7.4). Each
has a prediction of its length without the exit; for a random sample of them that length was
measured. The mean error of the predictions, as measured, is taken off every one. So the total is
right on average however wrong the predictor, and precise as far as it is right.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stepgrpo_core.intervals import Estimate, student_t

__all__ = ["MIN_GROUPS", "Comparison", "Measured", "Served", "compare", "total_savings"]

MIN_GROUPS = 10
"""Groups that hold something, below which there is no interval and therefore no figure."""


class Served(NamedTuple):
    """Sums over one group's requests on one side."""

    requests: float = 0
    tokens: float = 0
    """Completion tokens."""
    predicted: float = 0
    """Completion tokens predicted when the request came, from its prompt alone."""
    predicted_squared: float = 0
    predicted_tokens: float = 0
    """Products of the two."""

    @staticmethod
    def one(tokens: float, predicted: float) -> "Served":
        """The sums of one request."""
        return Served(1, tokens, predicted, predicted**2, predicted * tokens)


class Measured(NamedTuple):
    """Sums over one group's requests that could be paired with their run without exits."""

    requests: float = 0
    tokens: float = 0
    """Completion tokens, with the exit."""
    saved: float = 0
    """Predicted tokens without the exit, less the tokens with it."""
    cost: float = 0
    """Tokens of trial answers and those generated past the cut: known, not estimated."""
    pairs: float = 0
    """Requests of which the length without the exit was measured."""
    error: float = 0
    """Over pairs: measured length without the exit, less the predicted one."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a randomised holdout shows."""

    saved: Estimate
    """Tokens per request: without exits less with them."""
    ratio: Estimate
    """Tokens with exits over tokens without: 0.6 is 40 % saved."""
    exited: float
    """Requests served with exits."""
    held: float
    """Requests served without."""


def compare(exited: Mapping[int, Served], held: Mapping[int, Served]) -> Comparison | None:
    """Mean tokens with exits against those of the holdout, by group.

    None when either side has fewer than `MIN_GROUPS` groups with requests in them.
    """
    if any(
        sum(each.requests > 0 for each in side.values()) < MIN_GROUPS for side in (exited, held)
    ):
        return None
    nothing = Served()
    items = [
        (*exited.get(group, nothing), *held.get(group, nothing))
        for group in sorted({*exited, *held})
    ]
    return Comparison(
        saved=_jackknife(items, lambda sums: _difference(*_adjusted_means(sums))),
        ratio=_jackknife(items, lambda sums: _ratio(*_adjusted_means(sums))),
        exited=sum(each.requests for each in exited.values()),
        held=sum(each.requests for each in held.values()),
    )


def total_savings(groups: Mapping[int, Measured]) -> Estimate | None:
    """Tokens saved by all requests that could exit; None with too few measured pairs.

    The interval is that of the total over exactly these requests: what is not known of it is only
    what was not measured, so it closes as the sample becomes the whole.
    """
    items = [(each.pairs, each.error) for each in groups.values() if each.pairs]
    if len(items) < MIN_GROUPS:
        return None
    requests = sum(each.requests for each in groups.values())
    pairs = sum(count for count, _ in items)
    error = _jackknife(items, lambda sums: sums[1] / sums[0])
    value = math.fsum(each.saved for each in groups.values()) + requests * error.value
    half = requests * (error.high - error.value) * math.sqrt(1 - pairs / requests)
    return Estimate(value, value - half, value + half)


Sums = tuple[float, ...]


def _adjusted_means(sums: Sums) -> tuple[float, float]:
    """Mean tokens of both sides, had both had the mean prediction of all requests."""
    exited, held = sums[:5], sums[5:]
    mean = (exited[2] + held[2]) / (exited[0] + held[0])
    return _adjusted_mean(exited, mean), _adjusted_mean(held, mean)


def _adjusted_mean(side: Sums, mean_prediction: float) -> float:
    requests, tokens, predicted, squared, products = side
    spread = squared - predicted**2 / requests
    known = spread > 1e-9 * squared  # or all predictions are equal, and explain nothing
    slope = (products - predicted * tokens / requests) / spread if known else 0.0
    return tokens / requests - slope * (predicted / requests - mean_prediction)


def _difference(exited: float, held: float) -> float:
    return held - exited


def _ratio(exited: float, held: float) -> float:
    return exited / held if held else math.nan


def _jackknife(items: Sequence[Sums], figure: Callable[[Sums], float]) -> Estimate:
    """`figure` of the items' sums, its error from leaving each item out in turn."""
    count = len(items)
    sums = tuple(map(math.fsum, zip(*items, strict=True)))
    without = [figure(tuple(map(operator.sub, sums, item))) for item in items]
    mean = math.fsum(without) / count
    error = math.sqrt((count - 1) / count * math.fsum((each - mean) ** 2 for each in without))
    value, half = figure(sums), student_t(count - 1) * error
    return Estimate(value, value - half, value + half)
