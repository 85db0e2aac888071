"""`kimi`: the length reward of Kimi k1.5 (arXiv 2501.12599).

    l = 0.5 - (L - min) / (max - min), 0 when all lengths are equal
    R = acc + weight * (l when correct, else min(0, l))

with min and max over all completions of the group, including wrong ones.

Departures: the paper does not state the weight and begins training without the length reward; here
the weight is 1 from the first step.
"""

from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, GroupReward, check_range

__all__ = ["Kimi"]


@dataclass(frozen=True, slots=True)
class Kimi(GroupReward):
    """Correctness plus a reward for the position between the shortest and longest completion."""

    weight: float = 1.0
    """Weight of the length reward, in [0, 1], so that correct always beats wrong."""

    source: ClassVar[str] = "Kimi k1.5 (arXiv 2501.12599)"
    not_from_paper: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        check_range("weight", self.weight, 0, 1)

    def rewards_of(self, group: Group) -> list[float]:
        """Return the (G,) rewards of a group."""
        shortest = min(group.tokens)
        spread = max(group.tokens) - shortest
        bonuses = [0.5 - (length - shortest) / spread if spread else 0.0 for length in group.tokens]
        return [
            1 + self.weight * bonus if acc else self.weight * min(0.0, bonus)
            for acc, bonus in zip(group.correct, bonuses, strict=True)
        ]
