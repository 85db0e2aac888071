"""Accuracy against tokens: where methods end, and the ways there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from training.evaluation.statistics import Summary
from training.files import replacing

__all__ = ["draw"]

MARKERS = "sD^vP<>pXhd"

Points = Mapping[str, Sequence[tuple[int, Summary]]]


def draw(rows: Mapping[str, Summary], ways: Points, path: Path) -> None:
    """Draw rows (the first is vanilla) with 95 % bars, and ways as lines with their steps."""
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(13, 5.5), layout="constrained")
        ends, along = figure.subplots(1, 2)
        for place, (title, row) in enumerate(rows.items()):
            _end(ends, title, row, place)
        for place, title in enumerate(rows):
            if title in ways:
                _way(along, title, ways[title], place)
        ends.set_title("methods at their end, all seeds, 95 % intervals")
        along.set_title("on the way from vanilla, all seeds; numbers are optimiser steps")
        for axes in (ends, along):
            axes.set_xlabel("tokens per completion, mean")
            axes.set_ylabel("accuracy, %")
            axes.grid(alpha=0.3)
        ends.legend(fontsize="small", loc="best")
        along.legend(fontsize="small", loc="best")
        with replacing(path) as partial:
            figure.savefig(partial, format="png", dpi=100, metadata={"Software": None})


def _end(axes: Any, title: str, row: Summary, place: int) -> None:
    if row.accuracy is None:
        return
    value, low, high = row.accuracy.value, row.accuracy.low, row.accuracy.high
    axes.errorbar(
        row.tokens.value,
        100 * value,
        xerr=[[row.tokens.value - row.tokens.low], [row.tokens.high - row.tokens.value]],
        yerr=[[100 * (value - low)], [100 * (high - value)]],
        fmt="*" if place == 0 else MARKERS[place % len(MARKERS)],
        color="black" if place == 0 else f"C{place % 10}",
        markersize=11 if place == 0 else 6,
        capsize=3,
        linewidth=1,
        label=_plain(title),
    )


def _way(axes: Any, title: str, points: Sequence[tuple[int, Summary]], place: int) -> None:
    found = [
        (str(step), each.tokens.value, 100 * each.accuracy.value)
        for step, each in points
        if each.accuracy
    ]
    axes.plot(
        [tokens for _, tokens, _ in found],
        [accuracy for _, _, accuracy in found],
        marker=MARKERS[place % len(MARKERS)],
        color=f"C{place % 10}",
        label=_plain(title),
    )
    for name, tokens, accuracy in found:
        axes.annotate(
            name, (tokens, accuracy), textcoords="offset points", xytext=(4, 4), fontsize=7
        )


def _plain(title: str) -> str:
    return title.replace("*", "").replace("`", "")
