"""Estimators of the tokens that exits saved over many requests, computed from sums.

Requests of one conversation are similar, so they are not independent draws. Conversations are
assigned to random groups (`holdout.GROUPS`) and only sums per group are kept: a few hundred numbers
for any amount of traffic, which can be added over processes and restarts. Every interval is a
delete-a-group jackknife: the estimate is computed again without each group, and the spread of the
results gives the standard error, with Student's t at (groups - 1) degrees of freedom (Wolter 2007,
Introduction to Variance Estimation, ch. 2 and 4).

`compare`: randomized holdout. The control arm is served without exits; the difference of the arms'
means is what exits saved per request. A prediction made before assignment is independent of the
arm, so the variance that it explains is removed (Deng et al. 2013, CUPED; Lin 2013: one slope per
arm). A wrong prediction costs precision and adds no bias.

`total_savings`: difference estimator over all requests that could exit (Cochran 1977, 7.4). Each
request has a predicted length without the exit; for a random sample that length was measured. The
mean prediction error of the sample is subtracted from every prediction. So the total is unbiased
for any predictor, and more precise for a better one.

Both compare requests that were assigned and served under the same conditions. When the holdout's
share, the sampling rate or the exits change, a new stratum begins. Strata are compared separately
and combined with the number of treated requests as weights (Cochran 1977, 5.3). The control arm has
other weights, so sums must not be pooled over strata.
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
    "Arms",
    "Comparison",
    "Measured",
    "ServedTokens",
    "comparable",
    "compare",
    "compare_strata",
    "measurable",
    "total_savings",
]

MIN_GROUPS = 10
"""Minimum number of non-empty groups; with fewer there is no interval and no estimate."""


class ServedTokens(NamedTuple):
    """Sums over the requests of one group in one arm."""

    requests: float = 0
    tokens: float = 0
    """Completion tokens."""
    predicted: float = 0
    """Completion tokens predicted on arrival, from the prompt alone."""
    predicted_squared: float = 0
    predicted_tokens: float = 0
    """Sum of the products `predicted` * `tokens`."""

    @staticmethod
    def one(tokens: float, predicted: float) -> "ServedTokens":
        """Return the sums of one request."""
        return ServedTokens(1, tokens, predicted, predicted**2, predicted * tokens)


class Measured(NamedTuple):
    """Sums over the requests of one group that could be continued without exits."""

    requests: float = 0
    tokens: float = 0
    """Completion tokens, with the exit."""
    saved: float = 0
    """Predicted tokens without the exit, minus tokens with it."""
    cost: float = 0
    """Probe tokens and discarded tokens; both are counted, not estimated."""
    pairs: float = 0
    """Requests whose length without the exit was measured."""
    error: float = 0
    """Sum over pairs: measured minus predicted length without the exit."""


Arms = tuple[Mapping[int, ServedTokens], Mapping[int, ServedTokens]]
"""Sums of one stratum by group: treatment arm, control arm."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of a randomized holdout."""

    saved: Estimate
    """Tokens per request: control minus treatment."""
    ratio: Estimate
    """Treatment tokens divided by control tokens: 0.6 means that 40 % are saved."""
    treatment: float
    """Requests in the treatment arm, in strata that can be compared."""
    control: float
    """Requests in the control arm, in the same strata."""


def comparable(arms: Arms) -> bool:
    """Return whether both arms of a stratum have requests in at least `MIN_GROUPS` groups."""
    return all(sum(each.requests > 0 for each in arm.values()) >= MIN_GROUPS for arm in arms)


def compare(
    treatment: Mapping[int, ServedTokens], control: Mapping[int, ServedTokens]
) -> Comparison | None:
    """Compare the mean tokens of both arms of one stratum, given by group."""
    return compare_strata((treatment, control))


def compare_strata(*strata: Arms) -> Comparison | None:
    """Compare over several strata; None if no stratum is comparable.

    A conversation is in the same group in all strata, so the jackknife deletes it from all.
    """
    used = [arms for arms in strata if comparable(arms)]
    if not used:
        return None
    empty = ServedTokens()
    items = [
        tuple(itertools.chain(*(arm.get(group, empty) for arms in used for arm in arms)))
        for group in sorted({group for arms in used for arm in arms for group in arm})
    ]
    treatment, control = (
        [sum(each.requests for each in arms[i].values()) for arms in used] for i in (0, 1)
    )
    weights = [each / sum(treatment) for each in treatment]
    saved, ratio = _jackknife(items, lambda sums: _compare(sums, weights))
    return Comparison(saved, ratio, sum(treatment), sum(control))


def measurable(groups: Mapping[int, Measured]) -> bool:
    """Return whether a stratum has measured pairs in at least `MIN_GROUPS` groups."""
    return sum(each.pairs > 0 for each in groups.values()) >= MIN_GROUPS


def total_savings(*strata: Mapping[int, Measured]) -> Estimate | None:
    """Estimate the tokens saved by all requests that could exit; None if no stratum is measurable.

    The interval is for the total over exactly these requests (finite population correction): its
    width goes to zero as the measured sample approaches all of them.
    """
    totals = [(1.0, total) for each in strata if (total := _total(each)) is not None]
    return combined(totals) if totals else None


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


def _compare(sums: Sums, weights: Sequence[float]) -> tuple[float, float]:
    """Return difference and ratio of the weighted means; `sums` is concatenated over strata."""
    starts = range(0, len(sums), 2 * FIELDS)
    means = [_adjusted_means(sums[start : start + 2 * FIELDS]) for start in starts]
    treatment, control = (
        math.fsum(map(operator.mul, weights, arm)) for arm in zip(*means, strict=True)
    )
    return control - treatment, treatment / control if control else math.nan


def _adjusted_means(sums: Sums) -> tuple[float, float]:
    """Return the mean tokens of both arms, adjusted to the mean prediction of all requests."""
    treatment, control = sums[:FIELDS], sums[FIELDS:]
    mean = (treatment[2] + control[2]) / (treatment[0] + control[0])
    return _adjusted_mean(treatment, mean), _adjusted_mean(control, mean)


def _adjusted_mean(arm: Sums, mean_prediction: float) -> float:
    requests, tokens, predicted, squared, products = arm
    spread = squared - predicted**2 / requests
    varied = spread > 1e-9 * squared  # equal predictions explain nothing
    slope = (products - predicted * tokens / requests) / spread if varied else 0.0
    return tokens / requests - slope * (predicted / requests - mean_prediction)


def _jackknife(items: Sequence[Sums], statistics: Callable[[Sums], Sums]) -> list[Estimate]:
    """Return `statistics` of the items' sums with intervals from deleting each item in turn."""
    sums = tuple(map(math.fsum, zip(*items, strict=True)))
    replicates = [statistics(tuple(map(operator.sub, sums, item))) for item in items]
    return [
        _estimate(value, others)
        for value, *others in zip(statistics(sums), *replicates, strict=True)
    ]


def _estimate(value: float, replicates: Sequence[float]) -> Estimate:
    count = len(replicates)
    mean = math.fsum(replicates) / count
    error = math.sqrt((count - 1) / count * math.fsum((each - mean) ** 2 for each in replicates))
    half = student_t(count - 1) * error
    return Estimate(value, value - half, value + half)
