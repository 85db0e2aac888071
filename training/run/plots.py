"""Plots as PNG files in one style: learning curves, and accuracy against tokens."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from stepgrpo_core.savings.intervals import Estimate
from training.files import replacing

__all__ = ["MARKERS", "draw_curves", "draw_point", "label_axes", "saved_figure"]

MARKERS = "osD^v<>pPXhd"
PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("reward", ("reward",)),
    ("accuracy", ("grading/accuracy",)),
    ("tokens per completion", ("length/mean", "length/reasoning_mean")),
    ("steps k, and mu of the correct", ("steps/k_mean", "steps/mu_mean")),
    ("tokens per step", ("steps/tokens_per_step",)),
    ("share of rollouts", ("exits/truncated_share", "length/unfinished_share")),
    ("share of groups", ("groups/all_correct_share", "groups/all_wrong_share")),
    ("trainer and engine: |difference of log-probs|", ("sampling/sampling_logp_difference/mean",)),
    ("loss and KL", ("loss", "kl")),
    ("accuracy of the next token", ("mean_token_accuracy",)),
    ("entropy", ("entropy",)),
)
"""Title and metrics of each panel of the learning curves."""


@contextlib.contextmanager
def saved_figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """Yield a figure of `size` in inches; on exit write it to `path`, in full or not at all."""
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        with replacing(path) as partial:
            figure.savefig(partial, format="png", dpi=110, metadata={"Software": None})


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the metrics of `history` over training steps; panels without data are left out."""
    reasons = sorted({name for row in history for name in row if name.startswith("exits/")})
    by_reason = ("exits by reason", [name for name in reasons if not name.endswith("_share")])
    panels = [
        (title, {name: found for name in names if (found := _series(history, name))})
        for title, names in (*PANELS, by_reason)
    ]
    panels = [(title, series) for title, series in panels if series]
    if not panels:
        return
    rows = math.ceil(len(panels) / 3)
    with saved_figure(path, (13, 3 * rows)) as figure:
        for index, (title, series) in enumerate(panels, start=1):
            axes = figure.add_subplot(rows, 3, index)
            axes.set_title(title, fontsize="medium")
            for name, points in series.items():
                axes.plot(*zip(*points, strict=True), label=name.rpartition("/")[2])
            axes.set_xlabel("step", fontsize="small")
            axes.grid(alpha=0.3)
            if len(series) > 1:
                axes.legend(fontsize="small")


def _series(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [
        (int(row["step"]), float(row[name]))
        for row in history
        if name in row and math.isfinite(float(row[name]))
    ]


def label_axes(axes: Any, title: str) -> None:
    """Label axes for accuracy against tokens; `title` is plain text, not math."""
    axes.set_title(title, fontsize="medium", parse_math=False)
    axes.set_xlabel("tokens per completion, mean")
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.3)


def draw_point(
    axes: Any, label: str, tokens: Estimate, accuracy: Estimate, *, index: int, baseline: bool
) -> None:
    """Draw accuracy against tokens with both intervals; the baseline is a black star.

    `index` selects marker and color. Intervals of NaN are not drawn.
    """
    axes.errorbar(
        tokens.value,
        100 * accuracy.value,
        xerr=_bars(tokens.value, tokens.low, tokens.high),
        yerr=_bars(100 * accuracy.value, 100 * accuracy.low, 100 * accuracy.high),
        fmt="*" if baseline else MARKERS[index % len(MARKERS)],
        markersize=12 if baseline else 7,
        color="black" if baseline else f"C{index % 10}",
        capsize=3,
        linewidth=1,
        label=label,
    )


def _bars(value: float, low: float, high: float) -> list[list[float]] | None:
    return None if math.isnan(low) else [[max(value - low, 0)], [max(high - value, 0)]]
