"""`kimi`: the length reward of Kimi k1.5 (arXiv 2501.12599).

    l = 0.5 - (L - min) / (max - min), 0 when all lengths are equal
    R = acc + weight * (l when correct, else min(0, l))

with min and max over all completions of the group, the wrong ones included.

Departures: the paper leaves the weight open and begins training without the length reward; here
the weight is 1 from the first step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, Rewards, check_range, per_group

__all__ = ["Kimi"]


@dataclass(frozen=True, slots=True)
class Kimi:
    """Correctness plus where the length lies between the group's shortest and longest."""

    weight: float = 1.0
    """Of the length reward, in [0, 1], so that correct always beats wrong."""

    source: ClassVar[str] = "Kimi k1.5 (arXiv 2501.12599)"
    not_from_paper: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        check_range("weight", self.weight, 0, 1)

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """Rewards of each group by itself."""
        return per_group(groups, self._pay)

    def _pay(self, group: Group) -> list[float]:
        shortest = min(group.tokens)
        spread = max(group.tokens) - shortest
        bonuses = [0.5 - (length - shortest) / spread if spread else 0.0 for length in group.tokens]
        return [
            1 + self.weight * bonus if acc else self.weight * min(0.0, bonus)
            for acc, bonus in zip(group.correct, bonuses, strict=True)
        ]
