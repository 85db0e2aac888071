"""Trainings of a second: a model of a few weights under transformers' trainer, with our seals."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments

from training.rollouts.counters import Counters
from training.run.checkpoints import SealCheckpoints, checked_trainer

STEPS = 4


def model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=32, **sizes, **heads))


def arguments(output: Path, steps: int = STEPS) -> TrainingArguments:
    """Return arguments of a training on CPUs that saves every second step."""
    return TrainingArguments(
        output_dir=str(output),
        max_steps=steps,
        save_steps=2,
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_total_limit=2,
    )


def trainer(output: Path, *, steps: int = STEPS) -> Any:
    """Return a trainer that is not started yet."""
    return trainer_of(arguments(output, steps))


def trainer_of(chosen: TrainingArguments) -> Any:
    """Return a trainer with these arguments."""
    rows = [{"input_ids": [1, 2, 3, each], "labels": [1, 2, 3, each]} for each in range(4, 20)]
    return checked_trainer(Trainer)(
        model=model(),
        args=chosen,
        train_dataset=Dataset.from_list(rows),
        callbacks=[SealCheckpoints(Counters(rollouts=7))],
    )
