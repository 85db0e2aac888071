"""`gr3`: rescale the reward by the length relative to the group, GR3 (arXiv 2603.10535).

    R = acc / (1 + alpha * L / mean)

with mean over the tokens of all completions of the group, wrong ones included. The paper rescales
any reward; here it is correctness, so a wrong completion gets 0 whatever its length.
"""

from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, GroupReward, check_range

__all__ = ["GroupRelativeRescaling"]


@dataclass(frozen=True, slots=True)
class GroupRelativeRescaling(GroupReward):
    """Correctness, divided by one plus the relative length."""

    alpha: float = 0.33
    """Weight of the length relative to the group's mean, at least 0."""

    source: ClassVar[str] = "GR3 (arXiv 2603.10535)"

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 0)

    def rewards_of(self, group: Group) -> list[float]:
        """Return the (G,) rewards of a group."""
        middle = fmean(group.tokens) or 1.0  # all lengths are 0
        return [
            1 / (1 + self.alpha * length / middle) if acc else 0.0
            for acc, length in zip(group.correct, group.tokens, strict=True)
        ]
