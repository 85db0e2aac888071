"""`laser-d`: a bonus within a target length that adapts to the difficulty, LASER-D (2505.15612).

    R = acc + alpha * [correct and L <= target(difficulty)]

A prompt is easy if at least 2/3 of its completions are correct, medium from 1/3 on, else hard. The
target of a difficulty is the smallest candidate length at which one correct completion is expected
to fit: share of its completions within it * m >= 1, where m = 2K/3, K/3 and 1 (rounded down, at
least 1) is the least number of correct ones of its prompts of K completions. Without such a
candidate the target is unbounded. The candidates are `shortest`, and the multiples of `interval`
above it up to `longest`.

Departures: the authors count lengths every 20 steps on 500 held-out training problems; here they
are those of the batch itself. Their wrong answers get -0.5, and here 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, Rewards, check_range, per_batch

__all__ = ["LaserD"]


@dataclass(frozen=True, slots=True)
class LaserD:
    """Correctness plus a bonus within the target length of the prompt's difficulty."""

    alpha: float = 0.5
    """Bonus within the target, at least 0."""
    shortest: int = 4_096
    """Smallest target in tokens; the authors train with 1 024, 2 048 and 4 096."""
    longest: int = 16_384
    """Largest target in tokens, at least `shortest`."""
    interval: int = 1_024
    """Tokens between two targets."""

    source: ClassVar[str] = "LASER-D (arXiv 2505.15612)"
    not_from_paper: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 0)
        check_range("shortest", self.shortest, 1)
        check_range("longest", self.longest, self.shortest)
        check_range("interval", self.interval, 1)

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """Return the rewards; `groups` must be the whole batch."""
        return per_batch(groups, self._pay)

    def _pay(self, groups: Sequence[Group]) -> list[list[float]]:
        targets = self._targets(groups)
        return [self._rewards(group, target) for group, target in zip(groups, targets, strict=True)]

    def _rewards(self, group: Group, target: float) -> list[float]:
        return [
            1 + self.alpha * (length <= target) if acc else 0.0
            for acc, length in zip(group.correct, group.tokens, strict=True)
        ]

    def _targets(self, groups: Sequence[Group]) -> list[float]:
        """Return the target length of every group of the batch."""
        difficulty = [min(3 * sum(map(bool, g.correct)) // len(g.correct), 2) for g in groups]
        target: dict[int, float] = {}
        for level in set(difficulty):
            chosen = [group for group, own in zip(groups, difficulty, strict=True) if own == level]
            target[level] = self._target(chosen, level)
        return [target[level] for level in difficulty]

    def _target(self, groups: Sequence[Group], level: int) -> float:
        """Return the target of all groups of one difficulty: 0 hard, 1 medium, 2 easy."""
        lengths = [length for group in groups for length in group.tokens]
        size = max(len(group.correct) for group in groups)
        correct = max(level * size // 3, 1)
        first = self.shortest // self.interval * self.interval + self.interval
        candidates: list[int] = [self.shortest, *range(first, self.longest + 1, self.interval)]
        for candidate in candidates:
            if sum(length <= candidate for length in lengths) * correct >= len(lengths):
                return candidate
        return math.inf
