"""`lp`: the relative length penalty of Arora and Zanette (arXiv 2502.04463).

    R = 1 - alpha * sigmoid((L - mean) / std) when correct, else 0

with mean and std over the tokens of the *correct* completions of the prompt. One correct
completion, or correct ones of equal length, have no spread: z = 0, so R = 1 - alpha / 2.

The std is the population's (divided by n). The paper uses alpha from 0.05 to 0.4; the value in
Step-GRPO's tables was not found.
"""

import math
from dataclasses import dataclass
from itertools import compress
from statistics import fmean
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, GroupReward, check_range

__all__ = ["LengthPenalty", "length_penalized"]


@dataclass(frozen=True, slots=True)
class LengthPenalty(GroupReward):
    """Correctness with a penalty relative to the lengths of the group's correct completions."""

    alpha: float = 0.1
    """Maximum penalty, in [0, 1]; 0.05 to 0.4 in the paper."""

    source: ClassVar[str] = "LP, Arora and Zanette (arXiv 2502.04463)"

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 0, 1)

    def rewards_of(self, group: Group) -> list[float]:
        """Return the (G,) rewards of a group."""
        return length_penalized(group, self.alpha)


def length_penalized(group: Group, alpha: float) -> list[float]:
    """Return the (G,) rewards of one group of scored completions."""
    lengths = list(compress(group.tokens, group.correct))
    middle = fmean(lengths) if lengths else 0.0
    std = math.sqrt(fmean((length - middle) ** 2 for length in lengths)) if lengths else 0.0
    return [
        1 - alpha * _sigmoid((length - middle) / std if std else 0.0) if acc else 0.0
        for acc, length in zip(group.correct, group.tokens, strict=True)
    ]


def _sigmoid(z: float) -> float:
    return (1 + math.tanh(z / 2)) / 2  # no overflow, unlike 1 / (1 + exp(-z))
