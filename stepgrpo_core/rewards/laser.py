"""`laser`: a bonus for being correct within a target length, LASER (arXiv 2505.15612).

    R = acc + alpha * [correct and L <= target]

The authors train with targets of 2 048, 4 096 and 8 192 tokens; the default is the middle one.
Their LASER-D, which moves the target by difficulty during training, is not here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, Rewards, check_range, per_group

__all__ = ["Laser"]


@dataclass(frozen=True, slots=True)
class Laser:
    """Correctness, and a bonus below the target length."""

    alpha: float = 0.5
    """What a correct completion within the target gets on top, 0 or more."""
    target: int = 4_096
    """L_T, tokens."""

    source: ClassVar[str] = "LASER (arXiv 2505.15612)"
    not_from_paper: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 0)
        check_range("target", self.target, 1)

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """Rewards of each group by itself."""
        return per_group(groups, self._pay)

    def _pay(self, group: Group) -> list[float]:
        return [
            1 + self.alpha * (length <= self.target) if acc else 0.0
            for acc, length in zip(group.correct, group.tokens, strict=True)
        ]
