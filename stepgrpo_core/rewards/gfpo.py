"""`gfpo`: learn from a part of each group only, GFPO (arXiv 2508.09726).

    R = acc for the `keep` shortest completions, or those of the highest acc / L; else None

A completion without a reward gets the advantage 0 and is no part of its group's mean and standard
deviation, which is the paper's filter. Sample larger groups than are kept.

Departures: ties with the last one are kept, too, so order within the group is irrelevant. A
completion that is left out still counts in the KL term, if there is one. Adaptive-difficulty GFPO
is not implemented.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.rewards.accuracy import outcomes
from stepgrpo_core.rewards.base import Group, GroupReward, check_range

__all__ = ["GroupFiltered"]


@dataclass(frozen=True, slots=True)
class GroupFiltered(GroupReward):
    """Correctness of the completions that are kept; None for the others."""

    keep: int = 4
    """Number of completions of each group that are kept, at least 2."""
    metric: Literal["shortest", "efficiency"] = "shortest"
    """Completions that are kept: the shortest, or those with the most reward per token."""

    source: ClassVar[str] = "GFPO (arXiv 2508.09726)"
    not_from_paper: ClassVar[tuple[str, ...]] = ("keep",)

    def __post_init__(self) -> None:
        check_range("keep", self.keep, 2)
        if self.metric not in ("shortest", "efficiency"):
            raise InvalidSetting("metric", self.metric, "use 'shortest' or 'efficiency'")

    def rewards_of(self, group: Group) -> list[float | None]:
        """Return the (G,) rewards of a group."""
        rewards = outcomes(group)
        scores = [
            -length if self.metric == "shortest" else reward / max(length, 1)
            for reward, length in zip(rewards, group.tokens, strict=True)
        ]
        last = sorted(scores, reverse=True)[: self.keep][-1]
        return [
            reward if score >= last else None for reward, score in zip(rewards, scores, strict=True)
        ]
