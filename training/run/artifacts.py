"""Files that a run writes beside its weights: learning curves, model card, metrics, calibration."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from vllm import SamplingParams

from training.config.description import describe
from training.config.schema import RunConfig, dump_config
from training.data.dataset import DataReport
from training.rollouts.calibration import calibrate, write_baseline
from training.rollouts.offline import Engine
from training.run.plots import draw_curves

__all__ = ["Curves", "metric_table", "write_calibration", "write_card", "write_metrics"]

History = Sequence[Mapping[str, Any]]


class Curves(TrainerCallback):  # type: ignore[misc]
    """Draws `curves.png` at every checkpoint and at the end."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Draw the metrics so far."""
        del control
        if state.is_world_process_zero:
            draw_curves(state.log_history, Path(args.output_dir) / "curves.png")

    on_train_end = on_save


def write_metrics(output: Path, history: History) -> None:
    """Write the logged metrics as `metrics.jsonl`, one line per log entry."""
    lines = "".join(json.dumps(row) + "\n" for row in history)
    (output / "metrics.jsonl").write_text(lines, encoding="utf-8")


def write_calibration(
    config: RunConfig, engine: Engine, prompts: Sequence[str], params: SamplingParams
) -> None:
    """Record the lengths of completions without exits as `calibration.json`.

    Fewer prompts than `calibration_prompts` are sampled several times. Prints why there is no file.
    """
    samples = -(-config.calibration_prompts // len(prompts))
    try:
        baseline = calibrate(engine, _name(config), prompts, samples=samples, params=params)
    except ValueError as error:
        print(f"No calibration file: {error}", flush=True)
    else:
        write_baseline(baseline, Path(config.output) / "calibration.json")


def metric_table(history: History, names: Sequence[str], *, unit: str = "") -> str:
    """Return a Markdown table of the first and the last logged value of each metric.

    `history` are the log entries of training steps; metrics that the last one lacks are left out.
    """
    rows = "".join(
        f"| {name} | {history[0][name]:.4g} | {history[-1][name]:.4g} |\n"
        for name in names
        if history and name in history[-1]
    )
    return f"| training metric | first{unit} | last{unit} |\n|---|---|---|\n{rows}"


def write_card(
    config: RunConfig, *, tags: str, summary: str, sections: str, data: DataReport
) -> None:
    """Write the model card, `README.md`, with front matter for the Hugging Face hub.

    `summary` is a clause that follows the name of the base model; `sections` are Markdown.
    """
    model, name = config.model.name, _name(config)
    serve = (
        f"stepgrpo-serve {model} --enable-lora --lora-modules {name}=."
        if config.lora
        else "stepgrpo-serve ."
    )
    found = "\n".join(data.lines())
    card = f"""---
base_model: {model}
library_name: {"peft" if config.lora else "transformers"}
tags: [{tags}, reasoning]
---
# {name}

{summary} To serve it, run this in its folder: `{serve}`.

```text
{describe(config)}
```

{sections}
## Data
```text
{found}
```

## Configuration
```yaml
{dump_config(config)}```
"""
    (Path(config.output) / "README.md").write_text(card, encoding="utf-8")


def _name(config: RunConfig) -> str:
    return config.model.served_name or Path(config.output).name
