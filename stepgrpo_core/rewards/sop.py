"""`sop`: the soft overlong punishment of DAPO (arXiv 2503.14476), added to correctness.

    R = acc + 0                          while L <= limit - ramp
    R = acc + (limit - ramp - L) / ramp  while L <= limit
    R = acc - 1                          above

Departures: a wrong answer pays 0 where DAPO pays -1, so the punishment weighs twice as much
against it. The defaults are DAPO's and touch nothing below 16 384 tokens: set `limit` to the
run's own token limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, Rewards, check_range, per_group

__all__ = ["SoftOverlong"]


@dataclass(frozen=True, slots=True)
class SoftOverlong:
    """Correctness, less up to 1 on the last tokens before the limit."""

    limit: int = 20_480
    """L_max, tokens: at and above it the punishment is full."""
    ramp: int = 4_096
    """L_cache, tokens below the limit over which the punishment grows, at most `limit`."""

    source: ClassVar[str] = "SOP, DAPO (arXiv 2503.14476)"
    not_from_paper: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_range("limit", self.limit, 1)
        check_range("ramp", self.ramp, 1, self.limit)

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """Rewards of each group by itself."""
        return per_group(groups, self._pay)

    def _pay(self, group: Group) -> list[float]:
        return [
            bool(acc) - self._punishment(length)
            for acc, length in zip(group.correct, group.tokens, strict=True)
        ]

    def _punishment(self, tokens: int) -> float:
        return min(1.0, max(0.0, (tokens - (self.limit - self.ramp)) / self.ramp))
