"""What is said of a run's method: its source, and the settings that differ from it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from training.config.schema import RolloutConfig, RunConfig

__all__ = ["describe"]

SCRIPTS: Mapping[str, Any] = {
    "threshold": 0.95,
    "markers": ("Wait",),
    "min_interval": 0,
    "max_probes": 10,
}
"""Exit settings of the authors' published scripts, which also exit at repetition."""


def describe(config: RunConfig) -> str:
    """Return lines for the log: the method, its source, and the settings that differ from it."""
    if config.sft:
        return (
            "method: DEER+SFT (DEER: arXiv 2504.15895), rejection sampling and fine-tuning\n"
            f"not from its paper: samples={config.sft.samples}, keep={config.sft.keep}, sft.trl"
        )
    reward = config.reward.build()
    longest = config.trl.get("max_completion_length", math.inf)
    sources: Mapping[str, str] = getattr(reward, "disputed", {})
    ours, idle, disputed = [], [], []
    for each in dataclasses.fields(reward):
        value = getattr(reward, each.name)
        if each.name in sources:
            disputed.append(f"{each.name}={value!r} ({sources[each.name]})")
        elif each.name in reward.not_from_paper or value != each.default:
            ours.append(f"{each.name}={value!r}")
        if each.name in ("limit", "target") and value > longest:
            idle.append(f"{each.name}={value!r}")
    lines = {
        "method": [reward.source, f"reward {config.reward.name}", f"rollout {config.rollout.kind}"],
        "sources disagree": disputed,
        "not from its paper": ours,
        "other than in the authors' scripts": _departures(config.rollout),
        f"never reached below trl.max_completion_length={longest}": idle,
    }
    return "\n".join(f"{title}: {', '.join(parts)}" for title, parts in lines.items() if parts)


def _departures(rollout: RolloutConfig) -> list[str]:
    """Return the differences from the truncation in Step-GRPO's published scripts."""
    if rollout.kind != "truncated":
        return []
    differ = [
        f"{name}={value!r} (scripts: {theirs!r})"
        for name, theirs in SCRIPTS.items()
        if (value := getattr(rollout.exit, name)) != theirs
    ]
    policies = rollout.exit.policy.split("+")
    if "confidence" not in policies:
        differ.append(f"policy={rollout.exit.policy!r} (scripts: 'confidence+repetition')")
    if rollout.truncated_share != 1:
        differ.append(f"truncated_share={rollout.truncated_share} (scripts: all)")
    if "repetition" not in policies:
        differ.append("no exit at repetition (scripts: at three equal chunks)")
    return differ
