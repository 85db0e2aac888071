"""`shorterbetter`: penalize the distance to the sample optimal length (arXiv 2504.21370).

    R = alpha * acc - beta * |L - L_sol|

with L_sol the tokens of the shortest correct completion of the group, or the mean of all if none is
correct.

With the defaults 500 tokens cost as much as a wrong answer: a long correct completion can get less
than a wrong one of optimal length. The paper's later versions also report alpha 1 and 2.
"""

from dataclasses import dataclass
from itertools import compress
from statistics import fmean
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, GroupReward, check_range

__all__ = ["ShorterBetter"]


@dataclass(frozen=True, slots=True)
class ShorterBetter(GroupReward):
    """Correctness minus the distance to the shortest correct completion."""

    alpha: float = 0.5
    """Reward for a correct answer, at least 0."""
    beta: float = 0.001
    """Penalty per token of distance, at least 0."""

    source: ClassVar[str] = "ShorterBetter (arXiv 2504.21370)"

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 0)
        check_range("beta", self.beta, 0)

    def rewards_of(self, group: Group) -> list[float]:
        """Return the (G,) rewards of a group."""
        optimum = min(compress(group.tokens, group.correct), default=fmean(group.tokens))
        return [
            self.alpha * bool(acc) - self.beta * abs(length - optimum)
            for acc, length in zip(group.correct, group.tokens, strict=True)
        ]
