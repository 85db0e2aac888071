"""Intervals of 95 % that hold for benchmarks of 30 questions.

The questions are a sample of all questions that a benchmark could have asked, and the completions
of one question are alike. So the unit of every interval is the question: all are *clustered by
question*, and questions count equally however many of their samples could be graded.

*Accuracy* is the mean over questions of the share of correct samples. Its interval is Wilson's
with the effective number of samples, the number of independent ones that would have the variance
which the question means show (Korn and Graubard 1998; Dean and Pagano 2015), and Student's t
instead of z. With one sample per question it is Wilson's own. A bootstrap would give [1, 1] when
everything is correct; this does not.

*Mean tokens*: bootstrap-t over questions (Efron and Tibshirani 1993), since lengths are skewed.

*Differences and ratios of tokens*: percentile bootstrap over questions, all of a question's
samples and both contenders' together, with Hesterberg's correction for few questions (2015,
"expanded percentile": not 2.5 and 97.5, but what t and the small-sample factor say).

*Difference in accuracy* when fewer than `FEW` questions differ at all: the bootstrap has too few
values to draw from, so the interval is that of Agresti and Min (2005) for matched pairs, with half
a question added that is better and half a one that is worse, each by one sample.

*Means over tasks*: the squared distances from the tasks' figures to their limits are added (Zou
and Donner 2008, "MOVER").
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
"""Questions (for a difference in accuracy: that differ) below which there is too little to draw
from; other intervals take over."""

Array = npt.NDArray[np.float64]
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def accuracy_interval(scores: Sequence[Sequence[bool]]) -> Estimate | None:
    """Mean over questions of the share correct, Wilson's interval with the effective number of
    samples; None without scores. `scores` holds the graded samples of each question, 1 or more."""
    if not scores:
        return None
    means = np.array([sum(each) / len(each) for each in scores])
    return share_interval(means, sum(map(len, scores)))


def share_interval(means: Array, samples: float) -> Estimate:
    """Mean of the questions' `means` (Q,), each from 0 to 1; Wilson's interval with the effective
    number of samples, of which there are at most `samples`."""
    count, mean = len(means), float(means.mean())
    variance = float(means.var(ddof=1)) / count if count > 1 else math.inf
    effective = mean * (1 - mean) / variance if variance else samples
    if mean in (0, 1):
        effective = count  # nothing shows how alike the samples of a question are
    # Never fewer than the questions nor more than the samples, as chance could have it.
    effective = min(max(effective, count), samples)
    return Estimate(mean, *wilson(mean, effective, student_t(count - 1)))


def bootstrap(values: Array, weights: Array, below: Array | None = None) -> Estimate:
    """Mean of the questions' `values`, or with `below` the ratio of the two means.

    `values` (Q,), `weights` (resamples, Q): how often each resample drew each question.
    """
    if below is None:
        return percentiles(float(values.mean()), weights @ values / len(values), len(values))
    value = float(values.mean() / below.mean())
    return percentiles(value, (weights @ values) / (weights @ below), len(values))


def mean_interval(values: Array, weights: Array) -> Estimate:
    """Mean of the questions' skewed `values` (Q,), for example tokens, by the bootstrap-t; as
    `bootstrap` for fewer than `FEW` questions."""
    count = len(values)
    if count < FEW:
        return bootstrap(values, weights)
    value, error = float(values.mean()), float(values.std()) / math.sqrt(count)
    means = weights @ values / count
    squares = weights @ values**2 / count - means**2
    drawn = squares > 1e-9 * value**2  # all of a resample may be equal, but for rounding
    if not drawn.any():
        return Estimate(value, value, value)
    errors = np.sqrt(squares[drawn] / count)
    low, high = np.quantile((means[drawn] - value) / errors, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, value - float(high) * error, value - float(low) * error)


def difference_interval(differences: Sequence[Sequence[float]], weights: Array) -> Estimate | None:
    """Mean over questions of the mean difference in correctness (1, 0 or -1 for each sample, or
    between them where one of the two is a mixture).

    Questions without any are left out; None when none is left.
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
    some = totals > 0  # a resample may hold none of a few
    return percentiles(float(values.mean()), (drawn @ values)[some] / totals[some], len(kept))


def _matched_pairs(values: Array, least: float) -> Estimate:
    """Agresti and Min's interval; `least` is what one sample changes."""
    count = len(values) + 2
    mean = float(values.sum()) / count
    variance = (float((values**2).sum()) + least**2) / count - mean**2
    half = _Z * math.sqrt(variance / count)
    value = float(values.mean())
    low, high = max(mean - half, -1.0), min(mean + half, 1.0)
    return Estimate(value, min(low, value), max(high, value))


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent figures, with the interval that follows from theirs."""
    count = len(estimates)
    value = math.fsum(each.value for each in estimates) / count
    below = math.hypot(*(each.value - each.low for each in estimates)) / count
    above = math.hypot(*(each.high - each.value for each in estimates)) / count
    return Estimate(value, value - below, value + above)


def percentiles(value: float, replicates: Array, count: int) -> Estimate:
    """`value` with percentiles of its replicates, further out the fewer questions there are; one
    question alone has no interval (NaN)."""
    if count < 2:
        return Estimate(value, math.nan, math.nan)
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * student_t(count - 1))
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


@functools.lru_cache(maxsize=8)
def resamples_of(questions: int, resamples: int, seed: int) -> Array:
    """(resamples, Q): how often each resample, with replacement, draws each question."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(questions, np.full(questions, 1 / questions), resamples).astype(float)
