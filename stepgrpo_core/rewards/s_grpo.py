"""`s-grpo`: higher rewards for earlier correct exits of one chain, S-GRPO (arXiv 2505.07686).

    R = decay ** (n - 1) for the n-th shortest correct completion, else 0

The completions of a group must be truncations of one chain, from S-GRPO's own rollout. The paper's
advantage is R - mean, not divided by the std.

Departures: correct completions of equal length share the higher reward, so their order is
irrelevant.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, Rewards, check_range, per_group

__all__ = ["SGrpo"]


@dataclass(frozen=True, slots=True)
class SGrpo:
    """Reward that decays from one correct exit to the next."""

    decay: float = 0.5
    """Ratio of the rewards of successive correct exits, in [0, 1]."""

    source: ClassVar[str] = "S-GRPO (arXiv 2505.07686)"
    not_from_paper: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_range("decay", self.decay, 0, 1)

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """Return the rewards; each group is scored separately."""
        return per_group(groups, self._pay)

    def _pay(self, group: Group) -> list[float]:
        exits = sorted(compress(group.tokens, group.correct))
        return [
            self.decay ** bisect_left(exits, length) if acc else 0.0
            for acc, length in zip(group.correct, group.tokens, strict=True)
        ]
