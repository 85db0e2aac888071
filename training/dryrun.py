"""`--dry-run`: check everything that can be checked without training, and explain the run."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from training.checks import check_tokenizer, marker_lines
from training.config import RunConfig, describe
from training.engines import format_of
from training.trainer import arguments, load_data, load_tokenizer

__all__ = ["explain"]

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2}


def explain(config: RunConfig) -> None:
    """Print what will run. Raises what the run would raise, before anything is loaded on a GPU."""
    print(f"{describe(config)}\noutput: {Path(config.output).resolve()}")
    args = arguments(config)
    tokenizer = load_tokenizer(config)
    form = format_of(tokenizer, config.rollout.exit.closing_text, config.model.choice)
    markers = config.rollout.exit.markers
    check_tokenizer(tokenizer, form, markers)
    _section("Steps are counted at", marker_lines(form, markers))
    _section("Batches", batch_lines(args))
    parameters, vocabulary = model_size(config)
    _section("Memory, estimated", memory_lines(config, args, parameters, vocabulary))
    print("\nData")
    rows, _ = load_data(config, tokenizer)
    prompts = args.generation_batch_size // args.num_generations
    print(f"{len(rows)} prompts are {len(rows) / prompts:.1f} generations of {prompts} prompts")
    print("\nNothing was trained. Without --dry-run this configuration runs.")


def batch_lines(args: Any) -> list[str]:
    """The batch arithmetic in words; `args` is a ``GRPOConfig``."""
    size, group = args.generation_batch_size, args.num_generations
    local = args.per_device_train_batch_size * args.steps_per_generation
    updates = args.steps_per_generation * args.num_iterations / args.gradient_accumulation_steps
    batch = f"{args.per_device_train_batch_size} x {args.gradient_accumulation_steps}"
    steps = f"{args.max_steps} steps" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs"
    groups = f"{size // group} prompts x {group}, {local // group} whole groups on each process"
    return [
        f"{size} completions a generation on {args.world_size} process(es): {groups}",
        f"{updates:g} optimiser step(s) a generation, of {batch} x {args.world_size} completions",
        f"{steps}, at most {args.max_completion_length} tokens a completion",
    ]


def model_size(config: RunConfig) -> tuple[int, int]:
    """Number of parameters and size of the vocabulary, without loading weights."""
    found = AutoConfig.from_pretrained(
        config.model.name,
        revision=config.model.revision,
        trust_remote_code=config.model.trust_remote_code,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(found)
    return sum(each.numel() for each in model.parameters()), found.get_text_config().vocab_size


def memory_lines(config: RunConfig, args: Any, parameters: int, vocabulary: int) -> list[str]:
    """GiB on each process, if the trainer's state is sharded over all of them."""
    size = BYTES[config.model.dtype]
    processes = max(args.world_size, 1)
    weights = parameters * size
    trained = weights if config.lora is None else 0
    reference = weights if args.beta and config.lora is None else 0
    logits = args.per_device_train_batch_size * args.max_completion_length * vocabulary * 4
    engine = parameters * (2 if args.bf16 else size)
    budget = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "4")
    share = (
        f"{args.vllm_gpu_memory_utilization:.0%} of the GPU, cache included"
        if torch.cuda.is_available()
        else f"and {budget} GiB of cache"
    )
    adapter = f" through LoRA of rank {config.lora.r}" if config.lora else ""
    trainer = (weights + 3 * trained + reference) / processes / GIB
    vllm = f"{engine / GIB:.2f} GiB of weights, {share}"
    return [
        f"{parameters / 1e6:.1f} M parameters, trained in {config.model.dtype}{adapter}",
        f"weights, gradients, Adam, reference model: {trainer:.2f} GiB",
        f"logits of the longest micro-batch: at most {logits / GIB:.2f} GiB; no other activations",
        f"vLLM: {vllm if args.vllm_mode == 'colocate' else 'on its server'}",
    ]


def _section(title: str, lines: list[str]) -> None:
    print(f"\n{title}", *(f"  {line}" for line in lines), sep="\n")
