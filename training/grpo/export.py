"""What a finished run leaves: a folder that `stepgrpo-serve` serves as it is."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vllm import SamplingParams

from training.config.schema import RunConfig, describe, dump_config, prompt_template
from training.data.dataset import DataReport, Row
from training.rollouts.calibration import calibrate, write_baseline
from training.rollouts.counters import Counters
from training.rollouts.offline import Engine
from training.run.output import export, seal_output

__all__ = ["finish"]

SHOWN = (
    "reward",
    "grading/accuracy",
    "length/mean",
    "steps/k_mean",
    "steps/tokens_per_step",
    "exits/truncated_share",
    "sampling/sampling_logp_difference/mean",
)


def finish(
    config: RunConfig, trainer: Any, counters: Counters, report: DataReport, rows: Sequence[Row]
) -> None:
    """Write weights (or the adapter), tokenizer, calibration, metrics and card, then the seal that
    says so. Raises RunStopped where no weights can be written."""
    output = Path(config.output)
    trainer.model.config.use_cache = True  # training switched it off
    exported = export(trainer, output)
    if trainer.accelerator.is_main_process:
        history = trainer.state.log_history
        (output / "metrics.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in history), encoding="utf-8"
        )
        card = _card(config, counters, report, history)
        (output / "README.md").write_text(card, encoding="utf-8")
    _calibrate(config, trainer, output, rows)
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    if trainer.accelerator.is_main_process:
        seal_output(output, config, exported, trainer.state.global_step)


def _calibrate(config: RunConfig, trainer: Any, output: Path, rows: Sequence[Row]) -> None:
    """Record un-exited lengths of the trained model; every rank syncs, the first one writes."""
    if not config.calibration_prompts:
        return
    if trainer.vllm_generation.mode != "colocate":
        print("No calibration in server mode: run stepgrpo-train calibrate on the output.")
        return
    trainer.vllm_generation.sync_weights()  # the last update came after the last rollout
    if not trainer.accelerator.is_main_process:
        return
    template = prompt_template(config)
    engine = Engine(trainer.vllm_generation.llm, config.model.choice, template)
    args = trainer.args
    longest = args.vllm_max_model_length - config.data.max_prompt_tokens  # more than in training
    params = SamplingParams(temperature=args.temperature, top_p=args.top_p, max_tokens=longest)
    prompts = [row.prompt for row in rows[: config.calibration_prompts]]
    samples = -(-config.calibration_prompts // len(prompts))  # several of each if they are few
    try:
        baseline = calibrate(engine, _name(config), prompts, samples=samples, params=params)
    except ValueError as error:
        print(f"No calibration file: {error}", flush=True)
    else:
        write_baseline(baseline, output / "calibration.json")


def _name(config: RunConfig) -> str:
    return config.model.served_name or Path(config.output).name


def _card(
    config: RunConfig,
    counters: Counters,
    report: DataReport,
    history: Sequence[Mapping[str, Any]],
) -> str:
    logged = [row for row in history if "reward" in row]
    table = "\n".join(_row(name, logged) for name in SHOWN if logged and name in logged[-1])
    totals = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in dataclasses.asdict(counters).items()
    )
    serve = (
        f"stepgrpo-serve {config.model.name} --enable-lora --lora-modules {_name(config)}=."
        if config.lora
        else "stepgrpo-serve ."
    )
    data = "\n".join(report.lines())
    return f"""---
base_model: {config.model.name}
library_name: {"peft" if config.lora else "transformers"}
tags: [step-grpo, reasoning]
---
# {_name(config)}

Trained from `{config.model.name}` by stepgrpo. In this folder: `{serve}`.

```text
{describe(config)}
```

![Learning curves](curves.png)

| training metric | first step | last step |
|---|---|---|
{table}

These are of training rollouts, sampled at temperature {config.trl.get("temperature", 1.0)}; they
are no evaluation. Totals: {totals}.

## Data
```text
{data}
```

## Configuration
```yaml
{dump_config(config)}```
"""


def _row(name: str, logged: Sequence[Mapping[str, Any]]) -> str:
    return f"| {name} | {logged[0][name]:.4g} | {logged[-1][name]:.4g} |"
