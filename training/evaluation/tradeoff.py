"""Accuracy against mean tokens: one panel per task, one point per contender."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stepgrpo_core.risk import Selection
from training.evaluation.statistics import Summary
from training.files import replacing

__all__ = ["draw_risk", "draw_tradeoff"]

MARKERS = "osDv^<>pPXhd"


def draw_tradeoff(
    results: Mapping[str, Mapping[str, Summary]], path: Path, *, baseline: str | None
) -> None:
    """Draw `results` (by task and contender) with 95 % bars; the baseline is a star whose figures
    are dashed lines. A contender without any graded completion has no point."""
    columns = min(len(results), 3)
    rows = math.ceil(len(results) / max(columns, 1))
    names = list(dict.fromkeys(name for found in results.values() for name in found))
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(5.5 * columns, 4 * rows + 0.3 * len(names)), layout="constrained")
        FigureCanvasAgg(figure)
        for place, (task, found) in enumerate(results.items(), start=1):
            axes = figure.add_subplot(rows, columns, place)
            axes.set_title(task, fontsize="medium", parse_math=False)
            for name, summary in found.items():
                _point(axes, name, summary, names.index(name), is_baseline=name == baseline)
            axes.set_xlabel("tokens per completion, mean")
            axes.set_ylabel("accuracy, %")
            axes.grid(alpha=0.3)
        _legend(figure)
        with replacing(path) as partial:
            figure.savefig(partial, format="png", dpi=110, metadata={"Software": None})


def _point(axes: Any, name: str, summary: Summary, place: int, *, is_baseline: bool) -> None:
    accuracy, tokens = summary.accuracy, summary.tokens
    if accuracy is None:
        return
    colour = "black" if is_baseline else f"C{place % 10}"
    axes.errorbar(
        tokens.value,
        100 * accuracy.value,
        xerr=_bars(tokens.value, tokens.low, tokens.high),
        yerr=_bars(100 * accuracy.value, 100 * accuracy.low, 100 * accuracy.high),
        fmt="*" if is_baseline else MARKERS[place % len(MARKERS)],
        markersize=12 if is_baseline else 7,
        color=colour,
        capsize=3,
        linewidth=1,
        label=f"{name} (baseline)" if is_baseline else name,
    )
    if is_baseline:
        axes.axvline(tokens.value, color=colour, linestyle="--", linewidth=0.8, alpha=0.5)
        axes.axhline(100 * accuracy.value, color=colour, linestyle="--", linewidth=0.8, alpha=0.5)


def _bars(value: float, low: float, high: float) -> list[list[float]] | None:
    return None if math.isnan(low) else [[max(value - low, 0)], [max(high - value, 0)]]


def _legend(figure: Any) -> None:
    """One for all panels, below them: labels never lie over points."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        legend = figure.legend(
            found.values(), found.keys(), loc="outside lower center", ncols=1, fontsize="small"
        )
        for text in legend.get_texts():
            text.set_parse_math(False)  # names are text, also with a dollar sign


def draw_risk(found: Selection, path: Path) -> None:
    """Draw risk and savings against the threshold; bars reach to the upper bound of the risk."""
    places = range(len(found.candidates))
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        FigureCanvasAgg(figure)
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
        with replacing(path) as partial:
            figure.savefig(partial, format="png", dpi=110, metadata={"Software": None})
