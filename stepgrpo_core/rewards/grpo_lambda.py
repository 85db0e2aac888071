"""`grpo-lambda`: length is penalised only where the model is already right (arXiv 2505.18086).

    R = LP           in the top_fraction of the batch's groups by share of correct completions
    R = 1 or 0       in the others

The fraction is of the groups with a scored completion, rounded up. Ties go to the group that
comes first: batches are shuffled, so the order says nothing, and the fraction is kept.

The paper's constants were not found; 0.2 and 0.6 are those of a third-party build.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.accuracy import outcomes
from stepgrpo_core.rewards.base import Group, Rewards, check_range, mean, per_batch
from stepgrpo_core.rewards.lp import length_penalised

__all__ = ["GrpoLambda"]

ROUNDING = 1e-9  # 0.07 * 100 is a little more than 7, and must not round up to 8


@dataclass(frozen=True, slots=True)
class GrpoLambda:
    """The length penalty for the batch's easiest groups, correctness for the others."""

    top_fraction: float = 0.2
    """lambda: share of the batch's groups that get the length penalty, in [0, 1]."""
    alpha: float = 0.6
    """Largest penalty, in [0, 1]."""

    source: ClassVar[str] = "GRPO-lambda (arXiv 2505.18086)"
    not_from_paper: ClassVar[tuple[str, ...]] = ("top_fraction", "alpha")

    def __post_init__(self) -> None:
        check_range("top_fraction", self.top_fraction, 0, 1)
        check_range("alpha", self.alpha, 0, 1)

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """Rewards of the groups, which must be the whole batch's."""
        return per_batch(groups, self._pay)

    def _pay(self, groups: Sequence[Group]) -> list[list[float]]:
        top = self._top(groups)
        return [
            length_penalised(group, self.alpha) if index in top else outcomes(group)
            for index, group in enumerate(groups)
        ]

    def _top(self, groups: Sequence[Group]) -> set[int]:
        """Indices of the groups that get the length penalty."""
        shares = [mean(outcomes(group)) for group in groups]
        ranked = sorted(range(len(groups)), key=lambda index: -shares[index])  # stable
        return set(ranked[: math.ceil(self.top_fraction * len(groups) - ROUNDING)])
