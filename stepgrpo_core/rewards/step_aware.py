"""The step-aware relative reward of Step-GRPO (arXiv 2604.16890).

    R_i = alpha * acc_i * (1 - beta * tanh((k_i - mu) / mu)) + (1 - alpha) * fmt_i

with k the number of steps and mu the mean k of the *correct* completions of the group. With no
correct completion the efficiency factor is 1 (and every acc_i is 0).

Ablations: ``baseline="all"`` takes mu over every scored completion; ``beta=0`` pays no steps.

Departures: alpha is 0.9 as in the authors' code; the paper as noted has 0.1.
"""

import math
from collections.abc import Sequence
from typing import Literal

from stepgrpo_core.errors import InvalidGroup, InvalidSetting

__all__ = ["Baseline", "step_aware_rewards"]

Baseline = Literal["correct", "all"]


def step_aware_rewards(
    correct: Sequence[bool | None],
    formatted: Sequence[bool],
    steps: Sequence[int],
    *,
    alpha: float = 0.9,
    beta: float = 0.5,
    baseline: Baseline = "correct",
) -> list[float | None]:
    """Rewards of one group of completions of the same prompt, in order.

    All three have shape (G,): `correct` is None for a completion that could not be scored
    (it gets None and counts nowhere), `formatted` says that a box exists, `steps` are the k
    of `count_steps`, at least 1. `alpha` and `beta` lie in [0, 1].

    Raises InvalidGroup for an empty group, lengths that differ or steps below 1, and
    InvalidSetting for alpha, beta or baseline outside their range.
    """
    _check_settings(alpha, beta, baseline)
    _check_group(correct, formatted, steps)
    mu = _mean_steps(correct, steps, baseline)
    return [
        None
        if acc is None
        else alpha * acc * _efficiency(k, mu, beta) + (1 - alpha) * bool(has_box)
        for acc, has_box, k in zip(correct, formatted, steps, strict=True)
    ]


def _efficiency(k: int, mu: float | None, beta: float) -> float:
    return 1.0 if mu is None else 1 - beta * math.tanh((k - mu) / mu)


def _mean_steps(
    correct: Sequence[bool | None], steps: Sequence[int], baseline: Baseline
) -> float | None:
    counted = [
        k
        for acc, k in zip(correct, steps, strict=True)
        if acc is not None and (acc or baseline == "all")
    ]
    return math.fsum(counted) / len(counted) if counted else None


def _check_settings(alpha: float, beta: float, baseline: str) -> None:
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value <= 1:  # also refuses NaN
            raise InvalidSetting(name, value, "use a number from 0 to 1")
    if baseline not in ("correct", "all"):
        raise InvalidSetting("baseline", baseline, "use 'correct' or 'all'")


def _check_group(
    correct: Sequence[bool | None], formatted: Sequence[bool], steps: Sequence[int]
) -> None:
    sizes = (len(correct), len(formatted), len(steps))
    if len(set(sizes)) > 1:
        raise InvalidGroup(
            "correct, formatted and steps must describe the same completions, "
            f"but have {sizes[0]}, {sizes[1]} and {sizes[2]} entries"
        )
    if not correct:
        raise InvalidGroup("the group is empty; pass at least one completion")
    for index, (acc, k) in enumerate(zip(correct, steps, strict=True)):
        if acc is not None and acc not in (0, 1):
            raise InvalidGroup(f"correct[{index}]={acc!r} is not True, False or None")
        if not (math.isfinite(k) and k >= 1):
            raise InvalidGroup(f"steps[{index}]={k!r} is not a count of at least 1")
