"""`accuracy`: correctness only, as in plain GRPO (DeepSeekMath 2402.03300).

R = 1 when correct, else 0
"""

from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, GroupReward

__all__ = ["Accuracy", "outcomes"]


@dataclass(frozen=True, slots=True)
class Accuracy(GroupReward):
    """1 for correct, 0 for wrong."""

    source: ClassVar[str] = "GRPO (arXiv 2402.03300)"

    def rewards_of(self, group: Group) -> list[float]:
        """Return the (G,) rewards of a group."""
        return outcomes(group)


def outcomes(group: Group) -> list[float]:
    """Return (G,) rewards: 1 for correct completions, else 0."""
    return [1.0 if acc else 0.0 for acc in group.correct]
