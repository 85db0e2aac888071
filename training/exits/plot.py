"""Plot of risk and savings against the threshold."""

from pathlib import Path

from stepgrpo_core.risk import Selection
from training.run.plots import saved_figure

__all__ = ["draw_risk"]


def draw_risk(found: Selection, path: Path) -> None:
    """Draw risk and savings against the threshold; bars reach to the upper bound of the risk."""
    places = range(len(found.candidates))
    with saved_figure(path, (7, 4)) as figure:
        axes = figure.add_subplot()
        for place, each in zip(places, found.candidates, strict=True):
            color = "C0" if each.valid else "C7"
            reach = [[0.0], [100 * (each.bound - each.risk)]]
            axes.errorbar(place, 100 * each.risk, yerr=reach, fmt="o", color=color, capsize=3)
        axes.axhline(100 * found.epsilon, color="black", linestyle="--", linewidth=1)
        axes.set_xticks(places, [f"{each.threshold:g}" for each in found.candidates])
        axes.set_xlabel("threshold, the safest first")
        axes.set_ylabel(f"risk: {found.loss}, %")
        left = axes.twinx()
        left.plot(places, [100 * each.tokens_left for each in found.candidates], "C1-")
        left.set_ylabel("thinking tokens left, %", color="C1")
        left.set_ylim(0, 105)
