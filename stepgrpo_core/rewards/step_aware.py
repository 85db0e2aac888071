"""`step-aware`: the step-aware relative reward of Step-GRPO (arXiv 2604.16890).

    R = alpha * acc * (1 - beta * tanh((k - mu) / mu)) + (1 - alpha) * fmt

with k the number of steps and mu the mean k of the *correct* completions of the group. Without a
correct completion the efficiency factor is 1 (and every acc is 0).

Ablations: ``baseline="all"`` takes mu over all scored completions; ``beta=0`` ignores steps.

Sources: alpha is 0.9 as in the authors' scripts, which claim to follow the paper; the paper has 0.1
according to our notes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress
from statistics import fmean
from typing import ClassVar, Literal

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.rewards.base import Group, GroupReward, check_range

__all__ = ["StepAware"]


@dataclass(frozen=True, slots=True)
class StepAware(GroupReward):
    """Correctness weighted by steps relative to the group's correct completions, plus format."""

    alpha: float = 0.9
    """Weight of correctness, in [0, 1]; the format's weight is 1 - alpha."""
    beta: float = 0.5
    """Maximum share of the correctness that steps add or subtract, in [0, 1]."""
    baseline: Literal["correct", "all"] = "correct"
    """Completions whose mean number of steps is mu: the correct ones or all."""

    source: ClassVar[str] = "Step-GRPO (arXiv 2604.16890)"
    disputed: ClassVar[Mapping[str, str]] = {
        "alpha": "the authors' scripts have 0.9 and say that they follow the paper; the paper as "
        "noted has 0.1"
    }
    """Constants whose value differs between sources, with the sources."""

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 0, 1)
        check_range("beta", self.beta, 0, 1)
        if self.baseline not in ("correct", "all"):
            raise InvalidSetting("baseline", self.baseline, "use 'correct' or 'all'")

    def rewards_of(self, group: Group) -> list[float]:
        """Return the (G,) rewards of a group."""
        everyone = self.baseline == "all"
        counted = group.steps if everyone else list(compress(group.steps, group.correct))
        mu = fmean(counted) if counted else None
        return [
            self.alpha * bool(acc) * self._efficiency(k, mu) + (1 - self.alpha) * bool(box)
            for acc, box, k in zip(group.correct, group.formatted, group.steps, strict=True)
        ]

    def _efficiency(self, k: int, mu: float | None) -> float:
        return 1.0 if mu is None else 1 - self.beta * math.tanh((k - mu) / mu)
