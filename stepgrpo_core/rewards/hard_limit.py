"""`hard-limit`: what is cut pays nothing, ThinkPrune (2504.01296) and DLER (2510.15110).

    R = 1 when correct, finished and L <= limit, else 0

The limit is DLER's. ThinkPrune lowers its limit in rounds: train again with a smaller one. DLER's
batch-wise normalisation and asymmetric clipping belong to the trainer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, Rewards, check_range, per_group

__all__ = ["HardLimit"]


@dataclass(frozen=True, slots=True)
class HardLimit:
    """1 for correct and complete within the limit, else 0."""

    limit: int = 4_000
    """Tokens of the whole completion."""

    source: ClassVar[str] = "ThinkPrune, DLER (arXiv 2504.01296, 2510.15110)"
    not_from_paper: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_range("limit", self.limit, 1)

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """Rewards of each group by itself."""
        return per_group(groups, self._pay)

    def _pay(self, group: Group) -> list[float]:
        return [
            1.0 if acc and complete and length <= self.limit else 0.0
            for acc, complete, length in zip(
                group.correct, group.finished, group.tokens, strict=True
            )
        ]
