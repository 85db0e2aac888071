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

Both compare requests that were dealt and served alike. When the share that is held out or measured
changes, or what exits do, a stratum begins: before and after are compared apart, and combined by
the number of requests that exited in each (Cochran 1977, 5.3; what is held out has other weights,
which is why the sums of strata must not be pooled).
"""

import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stepgrpo_core.savings.intervals import Estimate, combined, student_t

__all__ = [
    "MIN_GROUPS",
    "Comparison",
    "Measured",
    "ServedTokens",
    "Sides",
    "comparable",
    "compare",
    "compare_strata",
    "measurable",
    "total_savings",
]

MIN_GROUPS = 10
"""Groups that hold something, below which there is no interval and therefore no figure."""


class ServedTokens(NamedTuple):
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
    def one(tokens: float, predicted: float) -> "ServedTokens":
        """The sums of one request."""
        return ServedTokens(1, tokens, predicted, predicted**2, predicted * tokens)


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


Sides = tuple[Mapping[int, ServedTokens], Mapping[int, ServedTokens]]
"""Of one stratum, by group: served with exits, and held out."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a randomised holdout shows."""

    saved: Estimate
    """Tokens per request: without exits less with them."""
    ratio: Estimate
    """Tokens with exits over tokens without: 0.6 is 40 % saved."""
    exited: float
    """Requests served with exits, in strata that can be compared."""
    held: float
    """Requests served without, in the same."""


def comparable(sides: Sides) -> bool:
    """Whether both sides of a stratum have requests in `MIN_GROUPS` groups or more."""
    return all(sum(each.requests > 0 for each in side.values()) >= MIN_GROUPS for side in sides)


def compare(
    exited: Mapping[int, ServedTokens], held: Mapping[int, ServedTokens]
) -> Comparison | None:
    """Mean tokens with exits against those of the holdout, by group, in one stratum."""
    return compare_strata((exited, held))


def compare_strata(*strata: Sides) -> Comparison | None:
    """The same over strata; None where none is comparable.

    A conversation is in the same group in all strata, so the jackknife leaves it out of all.
    """
    told = [sides for sides in strata if comparable(sides)]
    if not told:
        return None
    nothing = ServedTokens()
    items = [
        tuple(itertools.chain(*(side.get(group, nothing) for sides in told for side in sides)))
        for group in sorted({group for sides in told for side in sides for group in side})
    ]
    exited, held = (
        [sum(each.requests for each in sides[i].values()) for sides in told] for i in (0, 1)
    )
    weights = [each / sum(exited) for each in exited]
    saved, ratio = _jackknife(items, lambda sums: _compared(sums, weights))
    return Comparison(saved, ratio, sum(exited), sum(held))


def measurable(groups: Mapping[int, Measured]) -> bool:
    """Whether a stratum has measured pairs in `MIN_GROUPS` groups or more."""
    return sum(each.pairs > 0 for each in groups.values()) >= MIN_GROUPS


def total_savings(*strata: Mapping[int, Measured]) -> Estimate | None:
    """Tokens saved by all requests that could exit, in strata with enough measured pairs; None
    where none has them.

    The interval is that of the total over exactly these requests: what is not known of it is only
    what was not measured, so it closes as the sample becomes the whole.
    """
    told = [(1.0, found) for each in strata if (found := _total(each)) is not None]
    return combined(told) if told else None


def _total(groups: Mapping[int, Measured]) -> Estimate | None:
    if not measurable(groups):
        return None
    items = [(each.pairs, each.error) for each in groups.values() if each.pairs]
    requests = sum(each.requests for each in groups.values())
    pairs = sum(count for count, _ in items)
    (error,) = _jackknife(items, lambda sums: (sums[1] / sums[0] if sums[0] > 0 else math.nan,))
    value = math.fsum(each.saved for each in groups.values()) + requests * error.value
    half = requests * (error.high - error.value) * math.sqrt(1 - pairs / max(pairs, requests))
    return Estimate(value, value - half, value + half)


Sums = tuple[float, ...]
FIELDS = len(ServedTokens._fields)


def _compared(sums: Sums, weights: Sequence[float]) -> tuple[float, float]:
    """Difference and ratio of the means over strata, whose sums follow each other."""
    starts = range(0, len(sums), 2 * FIELDS)
    means = [_adjusted_means(sums[start : start + 2 * FIELDS]) for start in starts]
    exited, held = (
        math.fsum(map(operator.mul, weights, side)) for side in zip(*means, strict=True)
    )
    return held - exited, exited / held if held else math.nan


def _adjusted_means(sums: Sums) -> tuple[float, float]:
    """Mean tokens of both sides, had both had the mean prediction of all requests."""
    exited, held = sums[:FIELDS], sums[FIELDS:]
    mean = (exited[2] + held[2]) / (exited[0] + held[0])
    return _adjusted_mean(exited, mean), _adjusted_mean(held, mean)


def _adjusted_mean(side: Sums, mean_prediction: float) -> float:
    requests, tokens, predicted, squared, products = side
    spread = squared - predicted**2 / requests
    known = spread > 1e-9 * squared  # or all predictions are equal, and explain nothing
    slope = (products - predicted * tokens / requests) / spread if known else 0.0
    return tokens / requests - slope * (predicted / requests - mean_prediction)


def _jackknife(items: Sequence[Sums], figures: Callable[[Sums], Sums]) -> list[Estimate]:
    """`figures` of the items' sums, their errors from leaving each item out in turn."""
    sums = tuple(map(math.fsum, zip(*items, strict=True)))
    without = [figures(tuple(map(operator.sub, sums, item))) for item in items]
    return [
        _with_error(value, others) for value, *others in zip(figures(sums), *without, strict=True)
    ]


def _with_error(value: float, without: Sequence[float]) -> Estimate:
    count = len(without)
    mean = math.fsum(without) / count
    error = math.sqrt((count - 1) / count * math.fsum((each - mean) ** 2 for each in without))
    half = student_t(count - 1) * error
    return Estimate(value, value - half, value + half)
