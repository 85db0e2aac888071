"""`--dry-run`: check what can be checked without training, and explain the run."""

import contextlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM
from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from training.config.checks import check_tokenizer, marker_lines
from training.config.description import describe
from training.config.schema import RunConfig
from training.grpo.train import arguments
from training.rollouts.vllm_engine import format_of
from training.run.loading import load_data, load_tokenizer, model_of
from training.sft.train import sft_arguments

__all__ = ["Machine", "Shape", "batch_lines", "explain", "memory_lines"]

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2}
KEPT_VALUES = 17  # per token, layer and unit of width, without checkpoints (arXiv 2205.05198)
USUAL_GPU = 80.0  # GiB, if the run is planned for GPUs and this machine has none


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware that the run is planned for."""

    processes: int
    gpu_gib: float | None
    """Memory of each GPU in GiB; None if the run is on CPUs."""

    @classmethod
    def planned(cls, processes: int | None, gpu_gib: float | None, args: Any) -> "Machine":
        """Return the hardware of the flags, or else of this machine."""
        if gpu_gib is None and torch.cuda.is_available():
            gpu_gib = torch.cuda.get_device_properties(0).total_memory / GIB
        elif gpu_gib is None and processes is not None:
            gpu_gib = USUAL_GPU
        return cls(processes or max(args.world_size, 1), gpu_gib)


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model, in numbers of values or tokens."""

    parameters: int
    vocabulary: int
    width: int
    layers: int
    cached: int
    """Values per token in the KV cache."""
    positions: int

    @classmethod
    def of(cls, found: Any, trust_remote_code: bool = False) -> "Shape":
        """Return the sizes of a transformers configuration; no weights are loaded."""
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(found, trust_remote_code=trust_remote_code)
        text = found.get_text_config()
        heads = text.num_attention_heads
        head = getattr(text, "head_dim", None) or text.hidden_size // heads
        groups = getattr(text, "num_key_value_heads", None) or heads
        return cls(
            parameters=sum(each.numel() for each in model.parameters()),
            vocabulary=text.vocab_size,
            width=text.hidden_size,
            layers=text.num_hidden_layers,
            cached=2 * text.num_hidden_layers * groups * head,
            positions=text.max_position_embeddings,
        )


def explain(
    config: RunConfig, *, processes: int | None = None, gpu_gib: float | None = None
) -> None:
    """Print the plan of a run on `processes` with GPUs of `gpu_gib` each, or on this machine.

    Raises the errors of the run before anything is loaded on a GPU. Only the main process prints.
    """
    args = arguments(config)
    quiet = contextlib.redirect_stdout(io.StringIO())
    with contextlib.nullcontext() if PartialState().is_main_process else quiet:
        _explain(config, args, Machine.planned(processes, gpu_gib, args))


def _explain(config: RunConfig, args: Any, machine: Machine) -> None:
    print(f"{describe(config)}\noutput: {Path(config.output).resolve()}")
    if config.sft:
        sft_arguments(config)
    found = model_of(config, args.vllm_max_model_length)
    tokenizer = load_tokenizer(config)
    form = format_of(tokenizer, config.rollout.exit.closing_text, config.model.choice)
    markers = config.rollout.exit.markers
    check_tokenizer(tokenizer, form, markers)
    _section("Steps are counted at", marker_lines(form, markers))
    _section("Batches", batch_lines(args, machine.processes))
    shape = Shape.of(found, config.model.trust_remote_code)
    _section("Memory of each process, estimated", memory_lines(config, args, shape, machine))
    print("\nData")
    rows, _ = load_data(config, tokenizer)
    local = args.per_device_train_batch_size * args.steps_per_generation
    prompts = machine.processes * local // args.num_generations
    print(f"{len(rows)} prompts are {len(rows) / prompts:.1f} generations of {prompts} prompts")
    print("\nNothing was trained. Without --dry-run this configuration runs.")


def batch_lines(args: Any, processes: int | None = None) -> list[str]:
    """Return the batch arithmetic in words; `args` is a ``GRPOConfig``."""
    processes = processes or max(args.world_size, 1)
    group, local = args.num_generations, args.per_device_train_batch_size
    local *= args.steps_per_generation
    size = local * processes
    updates = args.steps_per_generation * args.num_iterations / args.gradient_accumulation_steps
    batch = f"{args.per_device_train_batch_size} x {args.gradient_accumulation_steps}"
    steps = f"{args.max_steps} steps" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs"
    groups = f"{size // group} prompts x {group}, {local // group} whole groups on each process"
    return [
        f"{size} completions a generation on {processes} process(es): {groups}",
        f"{updates:g} optimizer step(s) a generation, of {batch} x {processes} completions",
        f"{steps}, at most {args.max_completion_length} tokens a completion",
    ]


def memory_lines(config: RunConfig, args: Any, shape: Shape, machine: Machine) -> list[str]:
    """Return estimates in GiB per process, with the trainer's state sharded over all of them."""
    size = BYTES[config.model.dtype]
    weights = shape.parameters * size
    trained = weights if config.lora is None else 0
    reference = weights if args.beta and config.lora is None else 0
    adapter = f" through LoRA of rank {config.lora.r}" if config.lora else ""
    trainer = (weights + 3 * trained + reference) / machine.processes / GIB
    return [
        f"{shape.parameters / 1e6:.1f} M parameters, trained in {config.model.dtype}{adapter}",
        f"weights, gradients, Adam, reference model: {trainer:.2f} GiB",
        *_activation_lines(config, args, shape, size, sharded=machine.processes > 1),
        *_engine_lines(config, args, shape, machine),
    ]


def _activation_lines(
    config: RunConfig, args: Any, shape: Shape, size: int, *, sharded: bool
) -> list[str]:
    """Return lines on activations; TRL 1.16 keeps one tile of the logits at a time."""
    rows = args.per_device_train_batch_size
    tokens = rows * (config.data.max_prompt_tokens + args.max_completion_length)
    a_layer = tokens * shape.width * size
    if args.gradient_checkpointing:
        kept, how = shape.layers * a_layer, "checkpointed, one value per layer and unit"
    else:
        kept, how = shape.layers * a_layer * KEPT_VALUES, "not checkpointed, a rough figure"
    tile = min(TOKEN_CHUNK_SIZE, tokens), min(_CHUNKED_LOGPROB_CHUNK_SIZE, shape.vocabulary)
    logits = tile[0] * tile[1] * 4 / GIB
    head = f" and the whole head, {shape.vocabulary * shape.width * size / GIB:.2f} GiB"
    return [
        f"activations of the longest micro-batch, {how}: {kept / GIB:.2f} GiB",
        f"logits: tiles of {tile[0]} x {tile[1]}, {logits:.2f} GiB{head if sharded else ''}",
    ]


def _engine_lines(config: RunConfig, args: Any, shape: Shape, machine: Machine) -> list[str]:
    if args.vllm_mode != "colocate":
        return ["vLLM: on its server"]
    size = 2 if args.bf16 else BYTES[config.model.dtype]
    weights = shape.parameters * size / GIB
    if machine.gpu_gib is None:
        cache, budget = float(os.environ.get("VLLM_CPU_KVCACHE_SPACE", "4")), "beside them"
    else:
        share = args.vllm_gpu_memory_utilization
        cache = max(machine.gpu_gib * share - weights, 0.0)
        budget = f"up to {share:.0%} of a GPU of {machine.gpu_gib:.0f} GiB"
    longest = args.vllm_max_model_length or shape.positions
    held = cache * GIB / (shape.cached * size * longest)
    rollouts = args.per_device_train_batch_size * args.steps_per_generation
    line = f"cache: {held:.1f} sequences of all {longest} tokens at once, of {rollouts} completions"
    return [
        f"vLLM: {weights:.2f} GiB of weights, {cache:.2f} GiB of cache {budget}",
        line if held >= 1 else f"{line}; vLLM does not start with less than one",
    ]


def _section(title: str, lines: Sequence[str]) -> None:
    print(f"\n{title}", *(f"  {line}" for line in lines), sep="\n")
