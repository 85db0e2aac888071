"""A GRPO run from its configuration: TRL's trainer around our rollouts and rewards."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from training.checks import check_arguments, check_tokenizer
from training.config import LoraSettings, RunConfig, describe, dump_config
from training.curves import Curves
from training.data import DataReport, Row, load_rows
from training.engines import format_of
from training.finish import finish
from training.grading import Grader
from training.rewarding import RewardFunction
from training.rollout_func import RolloutFailed, RolloutFunction
from training.survival import (
    NotFinite,
    RunStopped,
    SaveFailed,
    Seals,
    StopOnSignal,
    guarded,
    last_sealed,
    remove_unsealed,
    restore,
    saved_message,
)
from training.upstream import engine_options, options_for, order_by_epoch

__all__ = ["arguments", "load_data", "load_tokenizer", "lora_of", "prepare_output", "train"]


def train(config: RunConfig, *, resume: bool = False) -> None:
    """Run to the last step, then write the model, its card and its calibration to the output.

    Raises RunStopped when a signal or a failure ended it, InvalidConfig and InvalidSetting for
    what cannot be run, FileExistsError for an output that holds another run.
    """
    output = Path(config.output)
    checkpoint = prepare_output(output, config, resume=resume)
    print(describe(config), flush=True)
    args = arguments(config)
    tokenizer = load_tokenizer(config)
    rows, report = load_data(config, tokenizer)
    with Grader(seconds=config.grading.seconds, workers=config.grading.workers) as grader:
        trainer, rollouts, stop = _build(config, args, tokenizer, rows, grader)
        if checkpoint:
            restore(checkpoint, rollouts.counters)
        with stop.listening():
            _run(trainer, checkpoint, output)
        if stop.signal is not None:
            raise RunStopped(f"{stop.signal.name}: {saved_message(output)}")
    finish(config, trainer, rollouts.counters, report, rows)


def arguments(config: RunConfig) -> GRPOConfig:
    """TRL's configuration of the run, checked."""
    given = dict(config.trl)
    length = given.get("max_completion_length", GRPOConfig.max_completion_length)
    trial = config.rollout.exit
    room = trial.probe_max_tokens + len(trial.inducing_prompt)  # characters bound its tokens
    given.setdefault("vllm_max_model_length", config.data.max_prompt_tokens + length + room)
    given.setdefault("vllm_importance_sampling_mode", "token_truncate")
    given.setdefault("report_to", "none")
    args = GRPOConfig(
        output_dir=config.output,
        seed=config.seed,
        use_vllm=True,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        logging_nan_inf_filter=False,  # would hide what it should show
        model_init_kwargs={"dtype": config.model.dtype, "revision": config.model.revision},
        trust_remote_code=config.model.trust_remote_code,
        **given,
    )
    check_arguments(config, args)
    return args


def load_tokenizer(config: RunConfig) -> Any:
    """The model's tokenizer, padding on the left as TRL asks."""
    return AutoTokenizer.from_pretrained(
        config.model.name,
        revision=config.model.revision,
        trust_remote_code=config.model.trust_remote_code,
        padding_side="left",
    )


def load_data(config: RunConfig, tokenizer: Any) -> tuple[list[Row], DataReport]:
    """Training rows and what became of the rest; prints the report."""
    options: Mapping[str, Any] = config.trl.get("chat_template_kwargs") or {}

    def count_tokens(prompt: str) -> int:
        message = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(
            message, add_generation_prompt=True, return_dict=False, **options
        )
        return len(ids)

    rows, report = load_rows(config.data, count_tokens)
    print(*report.lines(), sep="\n", flush=True)
    return rows, report


def prepare_output(output: Path, config: RunConfig, *, resume: bool) -> Path | None:
    """The checkpoint to go on from, if any; never writes over another run."""
    saved = last_sealed(output)
    if saved and not resume:
        raise FileExistsError(
            f"{output} holds a run that reached {saved.name}; pass --resume to go on with it, or "
            "another output"
        )
    output.mkdir(parents=True, exist_ok=True)
    if int(os.environ.get("RANK", "0")) == 0:
        for broken in remove_unsealed(output):
            print(f"removed {broken}: its saving was interrupted", flush=True)
        _keep_config(output / "config.yaml", dump_config(config), resumed=saved is not None)
    if resume and not saved:
        print(f"{output} holds no checkpoint yet: training starts at its first step", flush=True)
    return saved


def _keep_config(path: Path, text: str, *, resumed: bool) -> None:
    """Write the configuration; a resumed run says what is no longer as it was."""
    if resumed and path.exists():
        before = path.read_text(encoding="utf-8").splitlines()
        for line in difflib.ndiff(before, text.splitlines()):
            if line.startswith(("- ", "+ ")):
                print(f"changed since the run began: {line}", flush=True)
    path.write_text(text, encoding="utf-8")


def _build(
    config: RunConfig, args: GRPOConfig, tokenizer: Any, rows: Sequence[Row], grader: Grader
) -> tuple[GRPOTrainer, RolloutFunction, StopOnSignal]:
    form = format_of(tokenizer, config.rollout.exit.closing_text, config.model.choice)
    markers = config.rollout.exit.markers
    check_tokenizer(tokenizer, form, markers)
    rollouts = RolloutFunction(config, tokenizer, form)
    reward = RewardFunction(config.reward.name, config.reward.build(), grader, markers)
    generation = args.steps_per_generation * args.num_iterations // args.gradient_accumulation_steps
    stop = StopOnSignal(max(generation, 1))
    engine_dtype = "bfloat16" if args.bf16 else config.model.dtype
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is what we build on
    with engine_options(**options_for(engine_dtype, config.model.revision)):
        trainer = guarded(GRPOTrainer)(
            model=config.model.name,
            reward_funcs=reward,
            args=args,
            train_dataset=_dataset(rows),
            processing_class=tokenizer,
            rollout_func=rollouts,
            peft_config=lora_of(config.lora),
            callbacks=[stop, Seals(rollouts.counters), Curves()],
        )
    order_by_epoch(trainer)
    return trainer, rollouts, stop


def _run(trainer: GRPOTrainer, checkpoint: Path | None, output: Path) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except NotFinite as error:
        raise RunStopped(
            f"{error}: lower trl.learning_rate, or look at curves.png; {saved_message(output)}"
        ) from error
    except (RolloutFailed, SaveFailed, OSError) as error:
        raise RunStopped(f"{error}; {saved_message(output)}") from error


def _dataset(rows: Sequence[Row]) -> Dataset:
    return Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": row.prompt}], "answer": row.answer}
            for row in rows
        ]
    )


def lora_of(settings: LoraSettings | None) -> LoraConfig | None:
    """PEFT's form of the settings; None trains every weight."""
    if settings is None:
        return None
    modules = settings.target_modules
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
    )
