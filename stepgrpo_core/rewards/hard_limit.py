"""`hard-limit`: no reward for truncated completions, ThinkPrune (2504.01296), DLER (2510.15110).

    R = 1 when correct, finished and L <= limit, else 0

The default limit is DLER's. ThinkPrune lowers its limit in rounds: train again with a smaller one.
DLER's batch-wise normalization and asymmetric clipping are settings of the trainer.
"""

from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, GroupReward, check_range

__all__ = ["HardLimit"]


@dataclass(frozen=True, slots=True)
class HardLimit(GroupReward):
    """1 for correct completions that finished within the limit, else 0."""

    limit: int = 4_000
    """Maximum number of completion tokens."""

    source: ClassVar[str] = "ThinkPrune, DLER (arXiv 2504.01296, 2510.15110)"

    def __post_init__(self) -> None:
        check_range("limit", self.limit, 1)

    def rewards_of(self, group: Group) -> list[float]:
        """Return the (G,) rewards of a group."""
        return [
            1.0 if acc and complete and length <= self.limit else 0.0
            for acc, complete, length in zip(
                group.correct, group.finished, group.tokens, strict=True
            )
        ]
