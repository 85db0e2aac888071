"""`l1-max`: correctness that fades beyond a target length, LCPO-Max of L1 (arXiv 2503.04697).

    R = acc * clip(alpha * (target - L) + delta, 0, 1)

Departures: one target for all prompts. The paper draws it for each prompt from 100 to 4 000 tokens
and asks for it in the prompt ("Think for maximum N tokens."), after training with LCPO-Exact. As a
penalty with a fixed target it is a baseline of DLER (arXiv 2510.15110).
"""

from dataclasses import dataclass
from typing import ClassVar

from stepgrpo_core.rewards.base import Group, GroupReward, check_range

__all__ = ["L1Max"]


@dataclass(frozen=True, slots=True)
class L1Max(GroupReward):
    """Correctness times a clipped, linear function of the distance to the target."""

    alpha: float = 0.0003
    """Change per token, at least 0."""
    delta: float = 0.5
    """Reward for a correct completion of the target length, in [0, 1]."""
    target: int = 2_048
    """Target length n_gold in tokens."""

    source: ClassVar[str] = "L1, LCPO-Max (arXiv 2503.04697)"
    not_from_paper: ClassVar[tuple[str, ...]] = ("target",)

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 0)
        check_range("delta", self.delta, 0, 1)
        check_range("target", self.target, 1)

    def rewards_of(self, group: Group) -> list[float]:
        """Return the (G,) rewards of a group."""
        return [
            min(1.0, max(0.0, self.alpha * (self.target - length) + self.delta)) if acc else 0.0
            for acc, length in zip(group.correct, group.tokens, strict=True)
        ]
