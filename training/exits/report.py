"""What a calibration reports: a table, the figures as JSON, and a plot."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from stepgrpo_core.risk import Selection
from stepgrpo_core.savings.intervals import wilson
from training.exits.store import Recorded
from training.files import write_text

__all__ = ["chosen_of", "reliability", "table", "write_figures"]

BINS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)
"""Edges of the reliability diagram's bins of confidence."""


def chosen_of(found: Mapping[str, Selection]) -> str | None:
    """Return the policy whose chosen candidate costs least; None if none has a valid one."""
    costs = {policy: each.chosen.cost for policy, each in found.items() if each.chosen is not None}
    return min(costs, key=lambda policy: costs[policy], default=None)


def table(found: Mapping[str, Selection]) -> list[str]:
    """Return the candidates of all policies as lines of a Markdown table."""
    loss = next(iter(found.values())).loss
    return [
        f"| policy | threshold | {loss} | at most | tokens left | with probes | valid |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {policy} | {each.threshold} | {each.risk:.1%} | {each.bound:.1%} "
            f"| {each.tokens_left:.1%} | {each.cost:.1%} | {'yes' if each.valid else 'no'} |"
            for policy, of in found.items()
            for each in of.candidates
        ),
    ]


def reliability(runs: Sequence[Recorded], policy: str) -> list[dict[str, float]]:
    """Return, by bin of the confidence at exits, how many answers stayed the same.

    Exits of several candidates at one place count once.
    """
    seen = {
        (number, each.tokens, signal, each.changed)
        for number, run in enumerate(runs)
        for each, signal in zip(run.exits[policy], run.signals[policy], strict=True)
        if signal is not None
    }
    bins = (
        [(signal, changed) for _, _, signal, changed in seen if low < signal <= high]
        for low, high in itertools.pairwise(BINS)
    )
    return [_bin(inside) for inside in bins if inside]


def _bin(exits: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Return mean confidence, and the share of unchanged answers with its interval."""
    share = fmean(not changed for _, changed in exits)
    low, high = wilson(share, len(exits))
    mean = fmean(signal for signal, _ in exits)
    return {
        "confidence": mean,
        "exits": len(exits),
        "unchanged": share,
        "low": low,
        "high": high,
    }


def write_figures(output: Path, found: Mapping[str, Selection], runs: Sequence[Recorded]) -> None:
    """Write the figures of all candidates as JSON and PNG beside `output`."""
    figures = {
        policy: {**dataclasses.asdict(each), "reliability": reliability(runs, policy)}
        for policy, each in found.items()
    }
    chosen = chosen_of(found)
    write_text(
        output.with_suffix(".json"),
        json.dumps({"chosen": chosen, "policies": figures}, indent=1) + "\n",
    )
    from training.exits.plot import draw_risk  # noqa: PLC0415 - slow to load

    diagrams = {policy: of["reliability"] for policy, of in figures.items()}
    draw_risk(found, diagrams, output.with_suffix(".png"))
