"""Plot of accuracy against tokens: methods at the end of training, and their training paths."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.evaluation.statistics import Summary
from training.run.plots import MARKERS, draw_point, label_axes, saved_figure

__all__ = ["draw"]

Points = Mapping[str, Sequence[tuple[int, Summary]]]


def draw(rows: Mapping[str, Summary], ways: Points, path: Path) -> None:
    """Draw rows (the first is vanilla) with 95 % bars, and `ways`, the training paths, as lines
    with their steps."""
    with saved_figure(path, (13, 5.5)) as figure:
        ends, along = figure.subplots(1, 2)
        label_axes(ends, "methods at their end, all seeds, 95 % intervals")
        label_axes(along, "on the way from vanilla, all seeds; numbers are optimizer steps")
        for index, (title, row) in enumerate(rows.items()):
            if row.accuracy is not None:
                draw_point(
                    ends, _plain(title), row.tokens, row.accuracy, index=index, baseline=index == 0
                )
            if title in ways:
                _way(along, title, ways[title], index)
        for axes in (ends, along):
            axes.legend(fontsize="small", loc="best")


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
