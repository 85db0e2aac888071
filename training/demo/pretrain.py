"""Training of `demo-base` from scratch: next-token prediction on traces of the demo world.

Training has three stages. The model learns arithmetic from careful traces. Then it learns hasty
attempts, which would take far more steps from the start. In the last stage it practices these until
most of them are correct.
"""

import functools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Trainer,
    TrainingArguments,
    set_seed,
)

from training.demo.tokenizer import build_tokenizer
from training.demo.world import Piece, sample_problem, sample_trace
from training.rollouts.counters import Counters
from training.run.checkpoints import SealCheckpoints, checked_trainer, last_intact, remove_unsealed

IGNORED = -100  # label without loss
POOL = 8  # batches drawn together and sorted by length to reduce padding

Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Stage:
    """Stage of the training: linear warmup to `learning_rate`, then cosine decay to a tenth."""

    name: str
    steps: int
    """Optimizer steps."""
    learning_rate: float
    """Peak learning rate."""
    warmup_steps: int
    hasty: bool
    """True if the traces contain hasty attempts."""
    draws: str
    """Part of the random seed that makes the traces of each stage different."""


@dataclass(frozen=True, slots=True)
class BaseRecipe:
    """Hyperparameters of `demo-base`."""

    steps: int = 1_400
    """Optimizer steps on careful traces, with a peak rate of `learning_rate`."""
    hasty_steps: int = 600
    """Optimizer steps on traces with hasty attempts, with a peak rate of `hasty_learning_rate`."""
    practised_steps: int = 900
    """Optimizer steps on more traces with hasty attempts, with the same peak rate."""
    batch_size: int = 64
    """Traces per step."""
    learning_rate: float = 3e-3
    hasty_learning_rate: float = 2e-3
    seed: int = 0
    """Seed of weights and traces."""
    hidden_size: int = 192
    layers: int = 4
    max_tokens: int = 512
    """Maximum length; longer conversations (about 2 %) are replaced."""
    save_every: int = 100
    """Optimizer steps between checkpoints."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Return the stages in order."""
        return (
            Stage("careful", self.steps, self.learning_rate, 100, hasty=False, draws=""),
            self._hasty("hasty", self.hasty_steps),
            self._hasty("practised", self.practised_steps),
        )

    def _hasty(self, name: str, steps: int) -> Stage:
        return Stage(name, steps, self.hasty_learning_rate, 20, hasty=True, draws=f"{name}:")


def build_model(recipe: BaseRecipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Return a Qwen3 of the recipe's size with new weights."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.hidden_size * 8 // 3,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.hidden_size // 32,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


@dataclass(frozen=True, slots=True)
class TraceBatches:
    """Batches of a stage. Batch `i` depends only on (recipe, stage, i), so runs can resume."""

    recipe: BaseRecipe
    stage: Stage
    tokenizer: PreTrainedTokenizerFast

    def __len__(self) -> int:
        return self.stage.steps

    def __getitem__(self, index: int) -> Batch:
        return self._pool(index // POOL)[index % POOL]

    def _pool(self, pool: int) -> list[Batch]:
        return _pool_of_batches(self.recipe, self.stage, self.tokenizer, pool)


@functools.lru_cache(maxsize=2)
def _pool_of_batches(
    recipe: BaseRecipe, stage: Stage, tokenizer: PreTrainedTokenizerFast, pool: int
) -> list[Batch]:
    rng = random.Random(f"{recipe.seed}:{stage.draws}{pool}")
    size = recipe.batch_size
    examples = sorted(
        (
            _example(recipe.max_tokens, tokenizer, rng, hasty=stage.hasty)
            for _ in range(size * POOL)
        ),
        key=lambda e: len(e[0]),
    )
    batches = [examples[start : start + size] for start in range(0, len(examples), size)]
    rng.shuffle(batches)
    pad = int(tokenizer.pad_token_id)
    return [_collate(batch, pad) for batch in batches]


def _example(
    max_tokens: int, tokenizer: PreTrainedTokenizerFast, rng: random.Random, *, hasty: bool
) -> tuple[list[int], list[int]]:
    while True:
        ids, labels = _conversation(tokenizer, rng, hasty=hasty)
        if len(ids) <= max_tokens:
            return ids, labels


def _conversation(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, *, hasty: bool
) -> tuple[list[int], list[int]]:
    """Return token ids and labels of one conversation; every piece is tokenized separately."""
    problem = sample_problem(rng, "train")
    head = f"<|im_start|>user\n{problem.prompt}<|im_end|>\n<|im_start|>assistant\n"
    trace = sample_trace(problem, rng, hasty=hasty)
    pieces = [Piece(head, trained=False), *trace, Piece("<|im_end|>")]
    ids: list[int] = []
    labels: list[int] = []
    for piece in pieces:
        piece_ids = tokenizer.encode(piece.text, add_special_tokens=False)
        ids += piece_ids
        labels += piece_ids if piece.trained else [IGNORED] * len(piece_ids)
    return ids, labels


def _collate(examples: list[tuple[list[int], list[int]]], pad: int) -> Batch:
    width = max(len(ids) for ids, _ in examples)
    # All (B, T). Padding is on the right, so causal attention ignores it.
    return {
        "input_ids": torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in examples]),
        "labels": torch.tensor([lab + [IGNORED] * (width - len(lab)) for _, lab in examples]),
    }


def train_base(recipe: BaseRecipe, output: Path, work: Path) -> None:
    """Train into `output`; checkpoints are in `work`, from which an interrupted run resumes."""
    set_seed(recipe.seed)
    tokenizer = build_tokenizer()
    model = build_model(recipe, tokenizer)
    for stage in recipe.stages:
        trainer = _train(model, recipe, stage, tokenizer, work / stage.name)
    model.config.use_cache = True  # training switched it off
    model.generation_config.do_sample, model.generation_config.temperature = True, 0.6
    trainer.save_model(str(output))
    tokenizer.save_pretrained(str(output))


def _train(
    model: Qwen3ForCausalLM,
    recipe: BaseRecipe,
    stage: Stage,
    tokenizer: PreTrainedTokenizerFast,
    work: Path,
) -> Trainer:
    """Train in place from the newest intact checkpoint; a finished stage only loads its weights."""
    trainer: Trainer = checked_trainer(Trainer)(
        model=model,
        args=_arguments(recipe, stage, work),
        train_dataset=TraceBatches(recipe, stage, tokenizer),
        data_collator=_first,
        callbacks=[SealCheckpoints(Counters())],
    )
    checkpoint = last_intact(work)
    remove_unsealed(work)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer


def _first(items: list[Any]) -> Any:
    """Collate one item, because the dataset's items are whole batches."""
    return items[0]


def _arguments(recipe: BaseRecipe, stage: Stage, work: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(work),
        max_steps=stage.steps,
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=stage.warmup_steps,
        weight_decay=0.1,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        logging_steps=20,
        save_steps=recipe.save_every,
        save_total_limit=2,
        seed=recipe.seed,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        report_to=[],
        include_num_input_tokens_seen="all",
        disable_tqdm=False,
    )
