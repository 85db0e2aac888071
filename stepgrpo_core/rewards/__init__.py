"""Rewards of one group of completions.

How to add one: write a file with a function that takes the group's columns as equally long
sequences and returns one ``float | None`` per completion (None: could not be scored); state
source and departures at the top; enter it in `REWARDS`.
"""

from collections.abc import Callable

from stepgrpo_core.rewards.step_aware import step_aware_rewards

__all__ = ["REWARDS", "step_aware_rewards"]

REWARDS: dict[str, Callable[..., list[float | None]]] = {"step-aware": step_aware_rewards}
"""Reward functions by the name that a configuration uses."""
