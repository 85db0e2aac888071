"""`sop`: the soft overlong punishment of DAPO (arXiv 2503.14476), added to correctness.

    R = acc + 0                          for L <= limit - ramp
    R = acc + (limit - ramp - L) / ramp  for L <= limit
    R = acc - 1                          above

Departures: a wrong answer gets 0 where DAPO gives -1, so the punishment has twice the relative
weight. The defaults are DAPO's and affect nothing below 16 384 tokens: set `limit` to the run's own
token limit.
"""

from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, GroupReward, check_range

__all__ = ["SoftOverlong"]


@dataclass(frozen=True, slots=True)
class SoftOverlong(GroupReward):
    """Correctness minus a punishment that grows from 0 to 1 before the limit."""

    limit: int = 20_480
    """Length L_max in tokens from which the punishment is 1."""
    ramp: int = 4_096
    """Length L_cache in tokens over which the punishment grows, at most `limit`."""

    source: ClassVar[str] = "SOP, DAPO (arXiv 2503.14476)"

    def __post_init__(self) -> None:
        check_range("limit", self.limit, 1)
        check_range("ramp", self.ramp, 1, self.limit)

    def rewards_of(self, group: Group) -> list[float]:
        """Return the (G,) rewards of a group."""
        return [
            bool(acc) - self._punishment(length)
            for acc, length in zip(group.correct, group.tokens, strict=True)
        ]

    def _punishment(self, tokens: int) -> float:
        return min(1.0, max(0.0, (tokens - (self.limit - self.ramp)) / self.ramp))
