"""`laser-de`: LASER-D that also pays long wrong completions, LASER-DE (arXiv 2505.15612).

    R = acc + alpha * [correct and L <= target, or wrong, finished and L > target]

with the targets of `laser-d`: the bonus for a wrong completion is to keep the model exploring where
it has not found the answer.

Departures: those of `laser-d`. The authors do not pay a wrong completion that repeats itself, and
here repetitions are not looked for.
"""

from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group
from stepgrpo_core.rewards.laser_d import LaserD

__all__ = ["LaserDE"]


@dataclass(frozen=True, slots=True)
class LaserDE(LaserD):
    """Correctness plus a bonus for correct completions within the target, and wrong ones beyond."""

    source: ClassVar[str] = "LASER-DE (arXiv 2505.15612)"

    def _rewards(self, group: Group, target: float) -> list[float]:
        columns = zip(group.correct, group.finished, group.tokens, strict=True)
        return [
            1 + self.alpha * (length <= target)
            if acc
            else self.alpha * (complete and length > target)
            for acc, complete, length in columns
        ]
