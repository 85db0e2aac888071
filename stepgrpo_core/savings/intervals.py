"""Estimates with 95 % intervals, from the standard library."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

__all__ = ["LEVEL", "Estimate", "combined", "student_t", "wilson"]

LEVEL = 0.95
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_T = (12.7062, 4.3027)  # quantiles for 1 and 2 degrees of freedom


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; NaN means unknown."""

    value: float
    low: float
    high: float


def wilson(share: float, total: float, z: float | None = None) -> tuple[float, float]:
    """Return Wilson's score interval of a share of `total` draws; `z` None means 95 %."""
    z = _Z if z is None else z
    center = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    return max(min(center - half, share), 0.0), min(max(center + half, share), 1.0)


def combined(parts: Iterable[tuple[float, Estimate]]) -> Estimate:
    """Return the weighted sum of independent estimates; weights are positive.

    The distances to both interval ends are added in quadrature (MOVER, Zou and Donner 2008).
    """
    weighted = [
        (weight * each.value, weight * (each.value - each.low), weight * (each.high - each.value))
        for weight, each in parts
    ]
    values, below, above = zip(*weighted, strict=True)
    value = math.fsum(values)
    return Estimate(value, value - math.hypot(*below), value + math.hypot(*above))


def student_t(freedom: int) -> float:
    """Return the two-sided 95 % quantile of Student's t; `freedom` below 1 counts as 1.

    Cornish-Fisher expansion, whose error is 0.1 % at 3 degrees of freedom.
    """
    if freedom <= len(_T):
        return _T[max(freedom, 1) - 1]
    z, n = _Z, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )
