"""Figures with intervals of 95 %, from the standard library alone."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

__all__ = ["LEVEL", "Estimate", "combined", "student_t", "wilson"]

LEVEL = 0.95
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_T = (12.7062, 4.3027)  # of 1 and 2 degrees of freedom


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float


def wilson(share: float, total: float, z: float | None = None) -> tuple[float, float]:
    """Wilson's score interval of a share of `total` independent ones; `z` None: for 95 %."""
    z = _Z if z is None else z
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    return max(min(centre - half, share), 0.0), min(max(centre + half, share), 1.0)


def combined(parts: Iterable[tuple[float, Estimate]]) -> Estimate:
    """The sum of independent estimates, each with its weight, above 0. Its ends are as far off as
    theirs, by the root of the sum of squares (Zou and Donner 2008, MOVER)."""
    weighted = [
        (weight * each.value, weight * (each.value - each.low), weight * (each.high - each.value))
        for weight, each in parts
    ]
    values, below, above = zip(*weighted, strict=True)
    value = math.fsum(values)
    return Estimate(value, value - math.hypot(*below), value + math.hypot(*above))


def student_t(freedom: int) -> float:
    """Quantile of Student's t for the level (Cornish and Fisher's expansion, which errs by
    0.1 % with 3 degrees of freedom). None at all count as one."""
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
