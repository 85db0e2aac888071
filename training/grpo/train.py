"""GRPO training: TRL's trainer with our rollouts and rewards."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from training.config.checks import check_reporting, check_tokenizer
from training.config.description import describe
from training.config.schema import DEFAULTS, RunConfig, prompt_template
from training.config.trl import steps_per_generation
from training.data.dataset import Row
from training.data.prompts import PromptTemplate
from training.grading import Grades, grader_of
from training.grpo.completions import CompletionLog, forget_after
from training.grpo.export import finish
from training.grpo.reward_func import RewardFunction
from training.grpo.rollout_func import RolloutFunction
from training.rollouts.vllm_engine import format_of
from training.run.artifacts import Curves
from training.run.checkpoints import (
    SealCheckpoints,
    StopOnSignal,
    checked_trainer,
    restore_counters,
    train_to_end,
)
from training.run.loading import load_data, load_tokenizer, lora_of, model_of
from training.run.output import is_finished, locked_output, prepare_output
from training.run.processes import on_main
from training.run.upstream_patches import (
    engine_options,
    options_for,
    order_by_epoch,
    quiet_missing_rewards,
    send_merged_copies,
)

__all__ = ["arguments", "train"]


def train(config: RunConfig, *, resume: bool = False) -> None:
    """Train to the last step, then write the model, its card and its calibration to the output.

    A run that is resumed at its last step only does what comes after it. Raises RunStopped if a
    signal or a failure ended the run, InvalidConfig and InvalidSetting for invalid settings,
    FileExistsError if the output holds another run, FolderInUse if another run is writing to it.
    """
    args = arguments(config)
    model_of(config, args.vllm_max_model_length)
    tokenizer = load_tokenizer(config)
    exits = config.rollout.exit
    form = format_of(tokenizer, exits.closing_text, config.model.choice)
    check_tokenizer(tokenizer, form, exits.markers)
    start, end = form.family.start, form.family.end
    with locked_output(output := Path(config.output)):
        if resume and is_finished(output, config):
            print(f"{output} holds the finished run: nothing to do", flush=True)
            return
        every = steps_per_generation(args)
        checkpoint = prepare_output(output, config, resume=resume, every=every, end=args.max_steps)
        step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
        on_main(lambda: forget_after(output, step))
        print(describe(config), flush=True)
        rows, report = load_data(config, tokenizer)
        with grader_of(config.grading, start, end) as grader:
            trainer, rollouts, stop = _build(config, args, tokenizer, rows, grader)
            if checkpoint:
                restore_counters(checkpoint, rollouts.counters)
            with stop.listening():
                train_to_end(trainer, checkpoint, stop, setting="trl.learning_rate")
        finish(config, trainer, rollouts.counters, report, rows)


def arguments(config: RunConfig) -> GRPOConfig:
    """Return TRL's configuration of the run; raises InvalidConfig."""
    given = {**DEFAULTS, **config.trl}
    length = given.get("max_completion_length", GRPOConfig.max_completion_length)
    exits = config.rollout.exit
    room = exits.probe_max_tokens + len(exits.inducing_prompt)  # characters bound the tokens
    given.setdefault("vllm_max_model_length", config.data.max_prompt_tokens + length + room)
    check_reporting(given["report_to"], ("trl", "report_to"))
    return GRPOConfig(
        output_dir=config.output,
        seed=config.seed,
        use_vllm=True,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        logging_nan_inf_filter=False,  # it would hide NaN losses
        model_init_kwargs={"dtype": config.model.dtype, "revision": config.model.revision},
        trust_remote_code=config.model.trust_remote_code,
        **given,
    )


def _build(
    config: RunConfig, args: GRPOConfig, tokenizer: Any, rows: Sequence[Row], grader: Grades
) -> tuple[GRPOTrainer, RolloutFunction, StopOnSignal]:
    form = format_of(tokenizer, config.rollout.exit.closing_text, config.model.choice)
    markers = config.rollout.exit.markers
    rollouts = RolloutFunction(config, tokenizer, form)
    log = CompletionLog(Path(config.output), config.shown_groups)
    reward = RewardFunction(config.reward.name, config.reward.build(), grader, markers, log)
    stop = StopOnSignal(steps_per_generation(args))
    engine_dtype = "bfloat16" if args.bf16 else config.model.dtype
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is experimental
    with engine_options(**options_for(engine_dtype, config.model.revision)):
        trainer = checked_trainer(GRPOTrainer)(
            model=config.model.name,
            reward_funcs=reward,
            args=args,
            train_dataset=_dataset(rows, prompt_template(config)),
            processing_class=tokenizer,
            rollout_func=rollouts,
            peft_config=lora_of(config.lora),
            callbacks=[stop, SealCheckpoints(rollouts.counters), Curves()],
        )
    order_by_epoch(trainer)
    quiet_missing_rewards()
    send_merged_copies(trainer.vllm_generation)
    return trainer, rollouts, stop


def _dataset(rows: Sequence[Row], template: PromptTemplate) -> Dataset:
    return Dataset.from_list(
        [{"prompt": template.messages(row.prompt), "answer": row.answer} for row in rows]
    )
