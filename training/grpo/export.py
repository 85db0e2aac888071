"""Export of a finished GRPO run: a folder that `stepgrpo-serve` can serve."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vllm import SamplingParams

from training.config.schema import RunConfig, prompt_template
from training.data.dataset import DataReport, Row
from training.rollouts.counters import Counters
from training.rollouts.offline import Engine
from training.run.artifacts import metric_table, write_calibration, write_card, write_metrics
from training.run.output import export, seal_output

__all__ = ["finish"]

CARD_METRICS = (
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
    """Write weights (or the adapter), tokenizer, calibration, metrics and card, then the seal.

    Raises RunStopped if the weights cannot be written.
    """
    output = Path(config.output)
    trainer.model.config.use_cache = True  # training switched it off
    exported = export(trainer, output)
    if trainer.accelerator.is_main_process:
        write_metrics(output, trainer.state.log_history)
        write_card(
            config,
            tags="step-grpo",
            summary=f"Trained from `{config.model.name}` by stepgrpo.",
            sections=_sections(config, counters, trainer.state.log_history),
            data=report,
        )
    _calibrate(config, trainer, rows)
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    if trainer.accelerator.is_main_process:
        seal_output(output, config, exported, trainer.state.global_step)


def _calibrate(config: RunConfig, trainer: Any, rows: Sequence[Row]) -> None:
    """Calibrate the trained model; every rank syncs the weights, the main process writes."""
    if not config.calibration_prompts:
        return
    if trainer.vllm_generation.mode != "colocate":
        print("No calibration in server mode: run stepgrpo-train calibrate on the output.")
        return
    trainer.vllm_generation.sync_weights()  # the last update came after the last rollout
    if not trainer.accelerator.is_main_process:
        return
    args = trainer.args
    longest = args.vllm_max_model_length - config.data.max_prompt_tokens  # more than in training
    write_calibration(
        config,
        Engine(trainer.vllm_generation.llm, config.model.choice, prompt_template(config)),
        [row.prompt for row in rows[: config.calibration_prompts]],
        SamplingParams(temperature=args.temperature, top_p=args.top_p, max_tokens=longest),
    )


def _sections(config: RunConfig, counters: Counters, history: Sequence[dict[str, Any]]) -> str:
    steps = [row for row in history if "reward" in row]
    totals = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in dataclasses.asdict(counters).items()
    )
    return f"""![Learning curves](curves.png)

{metric_table(steps, CARD_METRICS, unit=" step")}
The metrics are of training rollouts, sampled at temperature {config.trl.get("temperature", 1.0)}; \
they are not an evaluation. Totals: {totals}.
"""
