"""`laser-de`: LASER-D that also pays long wrong completions, LASER-DE (arXiv 2505.15612).

    R = acc + alpha * [correct and L <= target, or wrong, finished and L > target]

with the targets of `laser-d`: the bonus for a wrong completion is to keep the model exploring where
it has not found the answer.

Departures: those of `laser-d`. The authors do not pay a wrong completion that repeats itself, and
here repetitions are not looked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, Rewards, per_batch
from stepgrpo_core.rewards.laser_d import LaserD

__all__ = ["LaserDE"]


@dataclass(frozen=True, slots=True)
class LaserDE:
    """Correctness plus a bonus for correct completions within the target, and wrong ones beyond."""

    alpha: float = 0.5
    """Bonus, at least 0."""
    shortest: int = 4_096
    """Smallest target in tokens; the authors train with 1 024, 2 048 and 4 096."""
    longest: int = 16_384
    """Largest target in tokens, at least `shortest`."""
    interval: int = 1_024
    """Tokens between two targets."""

    source: ClassVar[str] = "LASER-DE (arXiv 2505.15612)"
    not_from_paper: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self._laser_d()

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """Return the rewards; `groups` must be the whole batch."""
        return per_batch(groups, self._pay)

    def _laser_d(self) -> LaserD:
        return LaserD(self.alpha, self.shortest, self.longest, self.interval)

    def _pay(self, groups: Sequence[Group]) -> list[list[float]]:
        targets = self._laser_d().targets(groups)
        return [self._rewards(group, target) for group, target in zip(groups, targets, strict=True)]

    def _rewards(self, group: Group, target: float) -> list[float]:
        columns = zip(group.correct, group.finished, group.tokens, strict=True)
        return [
            1 + self.alpha * (length <= target)
            if acc
            else self.alpha * (complete and length > target)
            for acc, complete, length in columns
        ]
