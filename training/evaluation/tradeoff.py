"""Plot of accuracy against mean tokens: one panel per task, one point per contender."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.evaluation.statistics import Summary
from training.run.plots import draw_point, label_axes, saved_figure

__all__ = ["draw_tradeoff"]


def draw_tradeoff(
    results: Mapping[str, Mapping[str, Summary]], path: Path, *, baseline: str | None
) -> None:
    """Draw `results` (by task and contender) with 95 % bars; the baseline is a star with dashed
    lines through it. A contender without graded completions has no point."""
    columns = min(len(results), 3)
    rows = math.ceil(len(results) / max(columns, 1))
    names = list(dict.fromkeys(name for found in results.values() for name in found))
    with saved_figure(path, (5.5 * columns, 4 * rows + 0.3 * len(names))) as figure:
        for place, (task, found) in enumerate(results.items(), start=1):
            axes = figure.add_subplot(rows, columns, place)
            label_axes(axes, task)
            for name, summary in found.items():
                _point(axes, name, summary, names.index(name), is_baseline=name == baseline)
        _legend(figure)


def _point(axes: Any, name: str, summary: Summary, index: int, *, is_baseline: bool) -> None:
    accuracy, tokens = summary.accuracy, summary.tokens
    if accuracy is None:
        return
    label = f"{name} (baseline)" if is_baseline else name
    draw_point(axes, label, tokens, accuracy, index=index, baseline=is_baseline)
    if is_baseline:
        style = {"color": "black", "linestyle": "--", "linewidth": 0.8, "alpha": 0.5}
        axes.axvline(tokens.value, **style)
        axes.axhline(100 * accuracy.value, **style)


def _legend(figure: Any) -> None:
    """Draw one legend for all panels, below them, so that it never covers points."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        legend = figure.legend(
            found.values(), found.keys(), loc="outside lower center", ncols=1, fontsize="small"
        )
        for text in legend.get_texts():
            text.set_parse_math(False)  # names are plain text, even with a dollar sign
