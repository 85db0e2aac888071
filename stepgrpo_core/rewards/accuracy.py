"""`accuracy`: the outcome alone, plain GRPO (DeepSeekMath 2402.03300).

R = 1 when correct, else 0
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, Rewards, per_group

__all__ = ["Accuracy", "outcomes"]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """1 for correct, 0 for wrong."""

    source: ClassVar[str] = "GRPO (arXiv 2402.03300)"
    not_from_paper: ClassVar[tuple[str, ...]] = ()

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """Rewards of each group by itself."""
        return per_group(groups, outcomes)


def outcomes(group: Group) -> list[float]:
    """(G,) 1 or 0 for each completion."""
    return [1.0 if acc else 0.0 for acc in group.correct]
