"""`accuracy`: correctness only, as in plain GRPO (DeepSeekMath 2402.03300).

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
        """Return the rewards; each group is scored separately."""
        return per_group(groups, outcomes)


def outcomes(group: Group) -> list[float]:
    """Return (G,) rewards: 1 for correct completions, else 0."""
    return [1.0 if acc else 0.0 for acc in group.correct]
