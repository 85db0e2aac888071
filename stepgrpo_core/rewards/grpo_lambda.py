"""`grpo-lambda`: penalize length only for prompts that the model mostly solves (arXiv 2505.18086).

    R = LP           for the top_fraction of the batch's groups by share of correct completions
    R = 1 or 0       for the others

The fraction is of the groups with a scored completion, rounded up. Ties are broken by position,
which is random because batches are shuffled; so the fraction is exact.

The paper's constants were not found; 0.2 and 0.6 are from a third-party implementation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from stepgrpo_core.rewards.accuracy import outcomes
from stepgrpo_core.rewards.base import Group, Rewards, check_range, per_batch
from stepgrpo_core.rewards.lp import length_penalized

__all__ = ["GrpoLambda"]

ROUNDING = 1e-9  # 0.07 * 100 is slightly above 7 and must not be rounded up to 8


@dataclass(frozen=True, slots=True)
class GrpoLambda:
    """Length penalty for the batch's easiest groups, correctness for the others."""

    top_fraction: float = 0.2
    """lambda: share of the batch's groups that get the length penalty, in [0, 1]."""
    alpha: float = 0.6
    """Maximum penalty, in [0, 1]."""

    source: ClassVar[str] = "GRPO-lambda (arXiv 2505.18086)"
    not_from_paper: ClassVar[tuple[str, ...]] = ("top_fraction", "alpha")

    def __post_init__(self) -> None:
        check_range("top_fraction", self.top_fraction, 0, 1)
        check_range("alpha", self.alpha, 0, 1)

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """Return the rewards; `groups` must be the whole batch."""
        return per_batch(groups, self._pay)

    def _pay(self, groups: Sequence[Group]) -> list[list[float]]:
        top = self._top(groups)
        return [
            length_penalized(group, self.alpha) if index in top else outcomes(group)
            for index, group in enumerate(groups)
        ]

    def _top(self, groups: Sequence[Group]) -> set[int]:
        """Return the indices of the groups that get the length penalty."""
        shares = [fmean(outcomes(group)) for group in groups]
        ranked = sorted(range(len(groups)), key=lambda index: -shares[index])  # stable
        return set(ranked[: math.ceil(self.top_fraction * len(groups) - ROUNDING)])
