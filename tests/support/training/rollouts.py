"""Rollouts of a given length and end."""

from stepgrpo_core import ExitReason, Outcome
from training.rollouts.batch import Rollout


def rollout(
    reason: ExitReason, length: int, confidences: tuple[float, ...] = (), **changes: int
) -> Rollout:
    return Rollout(
        prompt_ids=(1,),
        ids=(5,) * length,
        logprobs=(0.0,) * length,
        injected=(False,) * length,
        outcome=Outcome(reason, 2, length // 2, len(confidences), 0, confidences, None),
        thinking_open=False,
        ended=reason is not ExitReason.LENGTH,
        probe_tokens=changes.get("probe_tokens", 0),
        discarded_tokens=changes.get("discarded_tokens", 0),
    )
