"""Learning curves as one PNG in the output folder: no service needed to see how a run goes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.files import replacing

__all__ = ["Curves", "draw_curves"]

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


class Curves(TrainerCallback):  # type: ignore[misc]
    """Draws `curves.png` anew at every checkpoint and at the end."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Draw what there is."""
        del control
        if state.is_world_process_zero:
            draw_curves(state.log_history, Path(args.output_dir) / "curves.png")

    on_train_end = on_save


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the metrics of `history` over training steps; a panel without any is left out."""
    panels = [
        (title, {name: found for name in names if (found := _series(history, name))})
        for title, names in PANELS
    ]
    panels = [(title, series) for title, series in panels if series]
    if not panels:
        return
    rows = math.ceil(len(panels) / 3)
    figure = Figure(figsize=(13, 3 * rows), layout="constrained")
    for index, (title, series) in enumerate(panels):
        axes = figure.add_subplot(rows, 3, index + 1)
        axes.set_title(title, fontsize="medium")
        for name, points in series.items():
            axes.plot(*zip(*points, strict=True), label=name.rpartition("/")[2])
        axes.set_xlabel("step", fontsize="small")
        axes.grid(alpha=0.3)
        if len(series) > 1:
            axes.legend(fontsize="small")
    with mpl.rc_context({"font.size": 9}), replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _series(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [
        (int(row["step"]), float(row[name]))
        for row in history
        if name in row and math.isfinite(float(row[name]))
    ]
