"""`alp`: a penalty per token that grows with the solve rate, ALP (arXiv 2506.05256).

    R = acc - beta * L * max(p, 1 / K)

with p the share of correct completions among the K of the prompt. Wrong completions pay, too.

The paper's normalization constant of the length is part of beta here. GRPO divides by the spread of
the rewards, so a small beta decides everything where all completions are correct.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from stepgrpo_core.rewards.accuracy import outcomes
from stepgrpo_core.rewards.base import Group, GroupReward, check_range

__all__ = ["AdaptiveLengthPenalty"]


@dataclass(frozen=True, slots=True)
class AdaptiveLengthPenalty(GroupReward):
    """Correctness minus a length penalty in proportion to the solve rate."""

    beta: float = 1e-7
    """Penalty per token for a prompt that is always solved, at least 0."""

    source: ClassVar[str] = "ALP (arXiv 2506.05256)"
    disputed: ClassVar[Mapping[str, str]] = {
        "beta": "notes on the paper have 1e-7 per token; others divide beta by a maximum length"
    }
    """Constants whose value differs between sources, with the sources."""

    def __post_init__(self) -> None:
        check_range("beta", self.beta, 0)

    def rewards_of(self, group: Group) -> list[float]:
        """Return the (G,) rewards of a group."""
        correctness = outcomes(group)
        per_token = self.beta * max(fmean(correctness), 1 / len(correctness))
        return [
            acc - per_token * length for acc, length in zip(correctness, group.tokens, strict=True)
        ]
