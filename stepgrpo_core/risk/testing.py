"""Tests of a risk: p-values and upper bounds that are valid for finite samples.

The null hypothesis is "the risk is above epsilon". With one run a question the losses are 0 or 1,
and the binomial tail is exact. With several runs the mean loss of a question is between 0 and 1,
and the Hoeffding-Bentkus p-value holds (Angelopoulos et al. 2021, Learn then Test, section 3.1).
"""

import math
from collections.abc import Sequence

__all__ = ["binomial_tail", "p_value", "upper_bound"]


def binomial_tail(failures: int, total: int, rate: float) -> float:
    """Return P(X <= failures) for X ~ Binomial(total, rate), rate from 0 to 1."""
    if rate <= 0 or failures >= total:
        return 1.0
    if rate >= 1:
        return 0.0
    odds = math.log(rate) - math.log1p(-rate)
    start = total * math.log1p(-rate)
    terms = (_log_choose(total, k) + start + k * odds for k in range(failures + 1))
    return min(math.fsum(map(math.exp, terms)), 1.0)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def p_value(losses: Sequence[float], epsilon: float) -> float:
    """Return a p-value of "the expected loss is above `epsilon`".

    `losses`: one per question, independent, each from 0 to 1. No losses give 1.
    """
    if not losses:
        return 1.0
    total, summed = len(losses), math.fsum(losses)
    if all(loss in (0, 1) for loss in losses):
        return binomial_tail(round(summed), total, epsilon)
    bentkus = math.e * binomial_tail(math.ceil(summed), total, epsilon)
    return min(1.0, bentkus, _hoeffding(min(summed / total, epsilon), epsilon, total))


def _hoeffding(mean: float, epsilon: float, total: int) -> float:
    """Return exp(-n KL(mean || epsilon)), the Chernoff form of Hoeffding's bound."""
    divergence = mean * math.log(mean / epsilon)
    divergence += (1 - mean) * (math.log1p(-mean) - math.log1p(-epsilon))
    return math.exp(-total * divergence)


def upper_bound(losses: Sequence[float], delta: float) -> float:
    """Return the smallest epsilon that `losses` would prove at confidence 1 - `delta`.

    This is the Clopper-Pearson bound if every loss is 0 or 1. It is exact to 1e-6, rounded up.
    """
    low, high = 0.0, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if p_value(losses, middle) <= delta:
            high = middle
        else:
            low = middle
    return high
