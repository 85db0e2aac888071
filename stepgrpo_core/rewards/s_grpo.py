"""`s-grpo`: higher rewards for earlier correct exits of one chain, S-GRPO (arXiv 2505.07686).

    R = decay ** (n - 1) for the n-th shortest correct completion, else 0

The completions of a group must be truncations of one chain, from S-GRPO's own rollout. The paper's
advantage is R - mean, not divided by the std.

Departures: correct completions of equal length share the higher reward, so their order is
irrelevant.
"""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import compress
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, GroupReward, check_range

__all__ = ["SGrpo"]


@dataclass(frozen=True, slots=True)
class SGrpo(GroupReward):
    """Reward that decays from one correct exit to the next."""

    decay: float = 0.5
    """Ratio of the rewards of successive correct exits, in [0, 1]."""

    source: ClassVar[str] = "S-GRPO (arXiv 2505.07686)"

    def __post_init__(self) -> None:
        check_range("decay", self.decay, 0, 1)

    def rewards_of(self, group: Group) -> list[float]:
        """Return the (G,) rewards of a group."""
        exits = sorted(compress(group.tokens, group.correct))
        return [
            self.decay ** bisect_left(exits, length) if acc else 0.0
            for acc, length in zip(group.correct, group.tokens, strict=True)
        ]
