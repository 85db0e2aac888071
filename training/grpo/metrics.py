"""Metrics of a batch of rollouts, logged beside the loss."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from stepgrpo_core import ExitReason, Group
from training.grading import Verdict
from training.rollouts.batch import Rollout

__all__ = ["group_statistics", "rollout_statistics", "verdict_statistics"]

QUANTILES = (0.1, 0.5, 0.9)
BY_MODEL = {ExitReason.NATURAL, ExitReason.LENGTH, ExitReason.NONE, ExitReason.EOS_IN_THINKING}


def rollout_statistics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Return metrics of exits, probes and lengths; shares are of all rollouts. May be empty."""
    if not rollouts:
        return {}
    reasons = Counter(each.outcome.reason for each in rollouts)
    lengths = [len(each.ids) for each in rollouts]
    spent = sum(each.probe_tokens for each in rollouts)
    dropped = sum(each.discarded_tokens for each in rollouts)
    generated = sum(lengths) + spent + dropped
    stats = {f"exits/{reason}": count / len(rollouts) for reason, count in reasons.items()}
    stats |= {
        "exits/truncated_share": fmean(each.outcome.reason not in BY_MODEL for each in rollouts),
        "length/mean": fmean(lengths),
        "length/max": max(lengths),
        "length/unfinished_share": fmean(not each.ended for each in rollouts),
        "length/reasoning_mean": fmean(each.outcome.reasoning_tokens for each in rollouts),
        "probes/per_rollout": fmean(each.outcome.probes for each in rollouts),
        "probes/token_share": spent / generated,
        "probes/discarded_share": dropped / generated,
    }
    confidences = sorted(c for each in rollouts for c in each.outcome.confidences)
    for share in QUANTILES if confidences else ():
        stats[f"probes/confidence_p{share * 100:.0f}"] = _quantile(confidences, share)
    return stats


def group_statistics(groups: Sequence[Group]) -> dict[str, float]:
    """Return metrics of steps and correctness; unscored ones count in `unscored_share` only."""
    steps = [k for group in groups for k in group.steps]
    tokens = [length for group in groups for length in group.tokens]
    scored = [acc for group in groups for acc in group.correct if acc is not None]
    stats = {
        "steps/k_mean": fmean(steps),
        "steps/tokens_per_step": sum(tokens) / sum(steps),
        "groups/all_correct_share": fmean(_all(group, True) for group in groups),
        "groups/all_wrong_share": fmean(_all(group, False) for group in groups),
        "grading/unscored_share": 1 - len(scored) / len(steps),
    }
    if scored:
        stats["grading/accuracy"] = fmean(scored)
    mus = [mu for group in groups if (mu := _mu(group)) is not None]
    if mus:
        stats["steps/mu_mean"] = fmean(mus)
    return stats


def verdict_statistics(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Return the shares of answers that were not graded as plainly correct or wrong, by reason."""
    return {
        f"grading/{reason}_share": fmean(each.reason == reason for each in verdicts)
        for reason in ("unevaluated", "costly", "percent", "timeout")
    }


def _all(group: Group, value: bool) -> bool:
    scored = [acc for acc in group.correct if acc is not None]
    return bool(scored) and all(acc == value for acc in scored)


def _mu(group: Group) -> float | None:
    """Return the mean k of the correct completions; None without one."""
    counted = [k for acc, k in zip(group.correct, group.steps, strict=True) if acc]
    return fmean(counted) if counted else None


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(math.floor(share * len(ordered)), len(ordered) - 1)]
