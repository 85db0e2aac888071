"""`laser`: a bonus for being correct within a target length, LASER (arXiv 2505.15612).

    R = acc + alpha * [correct and L <= target]

The authors train with targets of 2 048, 4 096 and 8 192 tokens; the default is the middle one.
"""

from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, GroupReward, check_range

__all__ = ["Laser"]


@dataclass(frozen=True, slots=True)
class Laser(GroupReward):
    """Correctness plus a bonus within the target length."""

    alpha: float = 0.5
    """Bonus for a correct completion within the target, at least 0."""
    target: int = 4_096
    """Target length L_T in tokens."""

    source: ClassVar[str] = "LASER (arXiv 2505.15612)"

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 0)
        check_range("target", self.target, 1)

    def rewards_of(self, group: Group) -> list[float]:
        """Return the (G,) rewards of a group."""
        return [
            1 + self.alpha * (length <= self.target) if acc else 0.0
            for acc, length in zip(group.correct, group.tokens, strict=True)
        ]
