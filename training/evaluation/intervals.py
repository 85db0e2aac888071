"""95 % confidence intervals that are valid for benchmarks of 30 questions.

The questions are a sample of all questions that a benchmark could have asked, and completions of
the same question are correlated. All intervals are therefore *clustered by question*, and every
question has the same weight, however many of its samples could be graded.

*Accuracy* is the mean over questions of the share of correct samples. Its interval is Wilson's with
the effective sample size, the number of independent samples that would have the observed variance
of the question means (Korn and Graubard 1998; Dean and Pagano 2015), and with Student's t instead
of z. With one sample per question it is Wilson's own. If all samples are correct, a bootstrap would
give [1, 1]; this interval does not.

*Mean tokens*: bootstrap-t over questions (Efron and Tibshirani 1993), because lengths are skewed.

*Differences and ratios of tokens*: percentile bootstrap over questions, which draws all samples of
a question and both contenders together, with Hesterberg's correction for few questions (2015,
"expanded percentile": the percentiles follow from t and the small-sample factor instead of 2.5 and
97.5).

*Difference in accuracy* if fewer than `FEW` questions differ at all: the bootstrap has too few
values to draw from, so the interval is that of Agresti and Min (2005) for matched pairs, which adds
half a question that is better by one sample and half a question that is worse by one sample.

*Means over tasks*: the squared distances from the estimates of the tasks to their limits are added
(Zou and Donner 2008, "MOVER").
"""

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from stepgrpo_core.savings.intervals import LEVEL, Estimate, student_t, wilson

__all__ = [
    "RESAMPLES",
    "Array",
    "accuracy_interval",
    "bootstrap",
    "difference_interval",
    "mean_interval",
    "mean_of",
    "percentiles",
    "resamples_of",
    "share_interval",
]

RESAMPLES = 10_000
FEW = 10
"""Minimum number of questions (for a difference in accuracy: of questions that differ) for a
bootstrap; other intervals are used below it."""

Array = npt.NDArray[np.float64]
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def accuracy_interval(scores: Sequence[Sequence[bool]]) -> Estimate | None:
    """Return the mean over questions of the share correct, with Wilson's interval for the effective
    sample size; None without scores. `scores` holds the graded samples of each question, 1 or
    more."""
    if not scores:
        return None
    means = np.array([sum(each) / len(each) for each in scores])
    return share_interval(means, sum(map(len, scores)))


def share_interval(means: Array, samples: float) -> Estimate:
    """Return the mean of the questions' `means` (Q,), each from 0 to 1, with Wilson's interval for
    the effective sample size, which is at most `samples`."""
    count, mean = len(means), float(means.mean())
    variance = float(means.var(ddof=1)) / count if count > 1 else math.inf
    effective = mean * (1 - mean) / variance if variance else samples
    if mean in (0, 1):
        effective = count  # the data do not show the correlation within a question
    # By chance it could be below the number of questions, or above that of samples: clamp it.
    effective = min(max(effective, count), samples)
    return Estimate(mean, *wilson(mean, effective, student_t(count - 1)))


def bootstrap(values: Array, weights: Array, below: Array | None = None) -> Estimate:
    """Return the mean of the questions' `values`, or with `below` the ratio of the two means.

    `values` has shape (Q,); `weights` (resamples, Q) counts how often each resample drew each
    question.
    """
    if below is None:
        return percentiles(float(values.mean()), weights @ values / len(values), len(values))
    value = float(values.mean() / below.mean())
    return percentiles(value, (weights @ values) / (weights @ below), len(values))


def mean_interval(values: Array, weights: Array) -> Estimate:
    """Return the mean of the questions' skewed `values` (Q,), for example tokens, by the
    bootstrap-t; by `bootstrap` for fewer than `FEW` questions."""
    count = len(values)
    if count < FEW:
        return bootstrap(values, weights)
    value, error = float(values.mean()), float(values.std()) / math.sqrt(count)
    means = weights @ values / count
    squares = weights @ values**2 / count - means**2
    drawn = squares > 1e-9 * value**2  # all values of a resample may be equal, except for rounding
    if not drawn.any():
        return Estimate(value, value, value)
    errors = np.sqrt(squares[drawn] / count)
    low, high = np.quantile((means[drawn] - value) / errors, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, value - float(high) * error, value - float(low) * error)


def difference_interval(differences: Sequence[Sequence[float]], weights: Array) -> Estimate | None:
    """Return the mean over questions of the mean difference in correctness (1, 0 or -1 for each
    sample, or between them if one of the two is a mixture).

    Questions with an empty sequence are omitted; None if none is left.
    """
    kept = [place for place, each in enumerate(differences) if each]
    if not kept:
        return None
    values = np.array([sum(differences[place]) / len(differences[place]) for place in kept])
    if np.count_nonzero(values) < FEW:
        most = max(len(differences[place]) for place in kept)
        return _matched_pairs(values, 1 / most)
    drawn = weights[:, kept]
    totals = drawn.sum(axis=1)
    some = totals > 0  # a resample of few questions may be empty
    return percentiles(float(values.mean()), (drawn @ values)[some] / totals[some], len(kept))


def _matched_pairs(values: Array, least: float) -> Estimate:
    """Return Agresti and Min's interval; `least` is the change from one sample."""
    count = len(values) + 2
    mean = float(values.sum()) / count
    variance = (float((values**2).sum()) + least**2) / count - mean**2
    half = _Z * math.sqrt(variance / count)
    value = float(values.mean())
    low, high = max(mean - half, -1.0), min(mean + half, 1.0)
    return Estimate(value, min(low, value), max(high, value))


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean of independent estimates, with an interval from their intervals."""
    count = len(estimates)
    value = math.fsum(each.value for each in estimates) / count
    below = math.hypot(*(each.value - each.low for each in estimates)) / count
    above = math.hypot(*(each.high - each.value for each in estimates)) / count
    return Estimate(value, value - below, value + above)


def percentiles(value: float, replicates: Array, count: int) -> Estimate:
    """Return `value` with percentiles of its replicates, further out for fewer questions; a single
    question has no interval (NaN)."""
    if count < 2:
        return Estimate(value, math.nan, math.nan)
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * student_t(count - 1))
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


@functools.lru_cache(maxsize=8)
def resamples_of(questions: int, resamples: int, seed: int) -> Array:
    """Return counts (resamples, Q): how often each resample, with replacement, draws each
    question."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(questions, np.full(questions, 1 / questions), resamples).astype(float)
