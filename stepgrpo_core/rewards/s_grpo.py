"""`s-grpo`: the earlier a correct exit of one chain, the more it pays, S-GRPO (arXiv 2505.07686).

    R = decay ** (n - 1) for the n-th correct completion from the left, else 0

The completions of a group must be cuts of one chain, made by S-GRPO's own rollout; left is fewer
tokens. The paper's advantage is R - mean, not divided by the std.

Departures: correct cuts of equal length share the higher reward, so that order says nothing.
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
    """A reward that decays from one correct exit to the next."""

    decay: float = 0.5
    """What each correct exit gets of the one before it, in [0, 1]."""

    source: ClassVar[str] = "S-GRPO (arXiv 2505.07686)"
    not_from_paper: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_range("decay", self.decay, 0, 1)

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """Rewards of each group by itself."""
        return per_group(groups, self._pay)

    def _pay(self, group: Group) -> list[float]:
        exits = sorted(compress(group.tokens, group.correct))
        return [
            self.decay ** bisect_left(exits, length) if acc else 0.0
            for acc, length in zip(group.correct, group.tokens, strict=True)
        ]
