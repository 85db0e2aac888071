"""Plot of risk and savings against the threshold, and of the reliability of the confidence."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepgrpo_core.risk import Selection
from training.run.plots import saved_figure

__all__ = ["draw_risk"]


def draw_risk(
    found: Mapping[str, Selection],
    reliability: Mapping[str, Sequence[Mapping[str, float]]],
    path: Path,
) -> None:
    """Draw, a row for each policy, risk and savings against the threshold, and the reliability.

    Bars of the risk reach to its upper bound, those of the reliability are intervals of 95 %.
    """
    with saved_figure(path, (11, 3.5 * len(found))) as figure:
        axes = figure.subplots(len(found), 2, squeeze=False)
        for (risk, diagram), (policy, selection) in zip(axes, found.items(), strict=True):
            _draw_candidates(risk, policy, selection)
            _draw_reliability(diagram, reliability[policy])


def _draw_candidates(axes: Any, policy: str, found: Selection) -> None:
    places = range(len(found.candidates))
    for place, each in zip(places, found.candidates, strict=True):
        color = "C0" if each.valid else "C7"
        reach = [[0.0], [100 * (each.bound - each.risk)]]
        axes.errorbar(place, 100 * each.risk, yerr=reach, fmt="o", color=color, capsize=3)
    axes.axhline(100 * found.epsilon, color="black", linestyle="--", linewidth=1)
    axes.set_xticks(places, [str(each.threshold) for each in found.candidates])
    axes.set_xlabel(f"threshold of {policy}, the safest first")
    axes.set_ylabel(f"risk: {found.loss}, %")
    left = axes.twinx()
    left.plot(places, [100 * each.cost for each in found.candidates], "C1-")
    left.set_ylabel("tokens left, with probes, %", color="C1")
    left.set_ylim(bottom=0)


def _draw_reliability(axes: Any, bins: Sequence[Mapping[str, float]]) -> None:
    for each in bins:
        share = each["unchanged"]
        reach = [[100 * (share - each["low"])], [100 * (each["high"] - share)]]
        axes.errorbar(100 * each["confidence"], 100 * share, yerr=reach, fmt="o", color="C0")
    axes.plot([0, 100], [0, 100], color="black", linestyle="--", linewidth=1)
    axes.set_xlabel("confidence at the exit, %")
    axes.set_ylabel("answers unchanged, %")
    axes.set_ylim(0, 105)
