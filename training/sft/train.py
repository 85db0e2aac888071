"""DEER+SFT: rejection sampling on vLLM, then fine-tuning on exactly the sampled tokens."""

import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from trl import SFTConfig, SFTTrainer
from vllm import SamplingParams

from training.config.checks import check_reporting, check_tokenizer
from training.config.description import describe
from training.config.schema import InvalidConfig, RunConfig, prompt_template
from training.data.dataset import DataReport, Row
from training.rollouts.offline import Engine
from training.rollouts.vllm_engine import format_of
from training.run.artifacts import (
    Curves,
    metric_table,
    write_calibration,
    write_card,
    write_metrics,
)
from training.run.checkpoints import (
    SealCheckpoints,
    StopOnSignal,
    checked_trainer,
    train_to_end,
)
from training.run.loading import load_data, load_tokenizer, lora_of, model_of
from training.run.output import export, is_finished, locked_output, prepare_output, seal_output
from training.run.processes import run_in_subprocess
from training.sft.rejection_sampling import sample_prompts
from training.sft.samples import PromptSamples, Report, counters_of, labeled_rows, report_of
from training.sft.sampling import grpo_setting, load_llm, longest_row, sampling_of

__all__ = ["build_trainer", "run_sft", "sft_arguments"]

DAY = 86_400  # seconds
CARD_METRICS = ("loss", "mean_token_accuracy", "entropy")


def run_sft(config: RunConfig, *, resume: bool) -> None:
    """Sample, fine-tune to the last step, and write the model, its card and its calibration.

    A run that is resumed at its last step only does what comes after it. Raises RunStopped if a
    signal or a failure ended the run, InvalidConfig and InvalidSetting for invalid settings,
    FileExistsError if the output holds another run, FolderInUse if another run is writing to it.
    """
    args = sft_arguments(config)
    model_of(config, grpo_setting(config, "vllm_max_model_length") or longest_row(config))
    tokenizer = load_tokenizer(config)
    markers, closing = config.rollout.exit.markers, config.rollout.exit.closing_text
    check_tokenizer(tokenizer, format_of(tokenizer, closing, config.model.choice), markers)
    with locked_output(output := Path(config.output)):
        if resume and is_finished(output, config):
            print(f"{output} holds the finished run: nothing to do", flush=True)
            return
        if not resume and any(output.glob("samples*.jsonl")):
            raise FileExistsError(
                f"{output} holds samples of another run; pass --resume to continue it, or "
                "another output"
            )
        _run(config, args, tokenizer, prepare_output(output, config, resume=resume))


def _run(config: RunConfig, args: SFTConfig, tokenizer: Any, checkpoint: Path | None) -> None:
    print(describe(config), flush=True)
    rows, data = load_data(config, tokenizer)
    stop = StopOnSignal(1)
    with stop.listening():
        samples = sample_prompts(config, rows, stop)
        trainer = build_trainer(config, args, tokenizer, samples, stop)
        train_to_end(trainer, checkpoint, stop, setting="sft.trl.learning_rate")
        exported = _finish(config, trainer, report_of(samples), data)
        step = trainer.state.global_step
        del trainer  # frees its memory
        if PartialState().is_main_process:
            _calibrate(config, rows, stop)
            seal_output(Path(config.output), config, exported, step)


def sft_arguments(config: RunConfig) -> SFTConfig:
    """Return TRL's configuration of the fine-tuning; raises InvalidConfig."""
    assert config.sft is not None
    given = dict(config.sft.trl)
    given.setdefault("report_to", "none")
    check_reporting(given["report_to"], ("sft", "trl", "report_to"))
    given.setdefault("ddp_timeout", DAY)  # processes wait for the slowest sampler
    args = SFTConfig(
        output_dir=config.output,
        seed=config.seed,
        use_cpu=not torch.cuda.is_available(),
        logging_nan_inf_filter=False,  # it would hide NaN losses
        model_init_kwargs={"dtype": config.model.dtype, "revision": config.model.revision},
        trust_remote_code=config.model.trust_remote_code,
        **given,
    )
    _check(config, args)
    return args


def _check(config: RunConfig, args: SFTConfig) -> None:
    longest = longest_row(config)
    if args.max_length is not None and args.max_length < longest:
        remedy = f"long rows would be truncated; use at least {longest}, or null"
        raise _refused("max_length", args.max_length, remedy)
    if args.completion_only_loss is False:
        raise _refused("completion_only_loss", False, "prompts never have loss; leave it out")


def _refused(name: str, value: object, remedy: str) -> InvalidConfig:
    return InvalidConfig(f"={value!r} is invalid: {remedy}", ("sft", "trl", name))


def build_trainer(
    config: RunConfig,
    args: SFTConfig,
    tokenizer: Any,
    samples: Sequence[PromptSamples],
    stop: StopOnSignal,
) -> SFTTrainer:
    """Return TRL's trainer on the selected completions.

    Rows contain `labels`, which TRL uses unchanged. From a completion mask TRL builds labels only
    if `completion_only_loss` is set; otherwise it trains on the prompts, too.
    """
    assert config.sft is not None
    rows = labeled_rows(
        samples,
        train_injected=config.rollout.train_injected,
        max_rows=config.sft.max_rows,
        seed=config.seed,
    )
    if args.process_index == 0:
        print(f"fine-tuning on {len(rows)} completions", flush=True)
    trainer: SFTTrainer = checked_trainer(SFTTrainer)(
        model=config.model.name,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora_of(config.lora),
        callbacks=[stop, SealCheckpoints(counters_of(samples)), Curves()],
    )
    return trainer


def _finish(config: RunConfig, trainer: SFTTrainer, sampled: Report, data: DataReport) -> list[str]:
    """Write weights (or the adapter), tokenizer, metrics and card; return the exported names."""
    output, history = Path(config.output), trainer.state.log_history
    trainer.model.config.use_cache = True  # training switched it off
    exported = export(trainer, output)
    if trainer.accelerator.is_main_process:
        write_metrics(output, history)
        write_card(
            config,
            tags="deer, sft",
            summary=f"Fine-tuned from `{config.model.name}` by stepgrpo on its own short correct "
            "completions.",
            sections=_sections(config, sampled, history),
            data=data,
        )
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    return exported


def _calibrate(config: RunConfig, rows: Sequence[Row], stop: StopOnSignal) -> None:
    if not config.calibration_prompts:
        return
    if config.lora:
        print("No calibration of an adapter: run stepgrpo-train calibrate on its folder.")
        return
    gc.collect()
    torch.cuda.empty_cache()  # of the trainer
    prompts = [row.prompt for row in rows[: config.calibration_prompts]]
    run_in_subprocess(_record_lengths, config, prompts, stop=stop)


def _record_lengths(config: RunConfig, prompts: Sequence[str], _: Callable[[], bool]) -> None:
    """Calibrate the fine-tuned model, on an engine in this process."""
    sampling = sampling_of(config)
    params = SamplingParams(
        temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_tokens
    )
    engine = Engine(load_llm(config, config.output), config.model.choice, prompt_template(config))
    write_calibration(config, engine, prompts, params)


def _sections(config: RunConfig, report: Report, history: Sequence[Mapping[str, Any]]) -> str:
    steps = [row for row in history if "loss" in row]
    sampled = "\n".join(report.lines())
    return f"""## Samples, at temperature {sampling_of(config).temperature}
```text
{sampled}
```

## Fine-tuning
![Learning curves](curves.png)

{metric_table(steps, CARD_METRICS)}
The metrics are of training; they are not an evaluation.
"""
