"""Patches on upstream, each with why and where. A test fails when a patched name is gone."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from trl.generation import vllm_generation
from vllm.model_executor.layers import utils as vllm_layers

__all__ = ["engine_options", "options_for", "order_by_epoch"]


@contextlib.contextmanager
def engine_options(**options: Any) -> Iterator[None]:
    """While active, the vLLM engine that TRL builds gets these arguments, too, and on CPUs keeps
    its weights where they can be loaded again.

    TRL 1.16 (`trl/generation/vllm_generation.py`, `VLLMGeneration._init_vllm`) passes a fixed set
    of arguments: neither dtype nor revision, so a float32 model would be sampled in bfloat16.
    """
    original = vllm_generation.LLM
    vllm_generation.LLM = functools.partial(original, **options)
    try:
        with contextlib.nullcontext() if torch.cuda.is_available() else _unpacked_weights():
            yield
    finally:
        vllm_generation.LLM = original


@contextlib.contextmanager
def _unpacked_weights() -> Iterator[None]:
    """vLLM 0.31 packs linear weights for CPUs with AVX-512 (`dispatch_cpu_unquantized_gemm`).

    Some originals are dropped, so TRL's `load_weights` fails; of others, the head tied to the
    embedding, the packed copy stays behind, so the engine would sample from old weights.
    """
    original = vllm_layers.dispatch_cpu_unquantized_gemm
    vllm_layers.dispatch_cpu_unquantized_gemm = _plain_linear
    try:
        yield
    finally:
        vllm_layers.dispatch_cpu_unquantized_gemm = original


def _plain_linear(layer: Any, remove_weight: bool) -> None:
    del remove_weight
    layer.cpu_linear = torch.nn.functional.linear


def order_by_epoch(trainer: Any) -> None:
    """Make the order of prompts a function of seed and epoch.

    TRL 1.16's `RepeatSampler` (`trl/trainer/utils.py`) draws every epoch from one generator that
    no checkpoint keeps, so a run resumed after its first epoch would see another order.
    """
    original = trainer._get_train_sampler

    def sampler_with_epochs(*args: Any) -> Any:
        sampler = original(*args)
        if sampler.shuffle:
            # The trainer calls this before each epoch, resumed or not.
            sampler.set_epoch = lambda epoch: sampler.generator.manual_seed(sampler.seed + epoch)
        return sampler

    trainer._get_train_sampler = sampler_with_epochs


def options_for(dtype: str, revision: str | None) -> dict[str, Any]:
    """What the engine needs beyond TRL's own arguments."""
    options: dict[str, Any] = {"dtype": dtype, "revision": revision, "enable_prefix_caching": True}
    if not torch.cuda.is_available():
        # Compiling needs a C++ compiler, and vLLM 0.31 on CPUs dies of a seed together with
        # chunked prefill ("CPU Generator does not use offset"). Its blocks have 128 tokens there,
        # more than the demo's prompts: nothing would be shared.
        options |= {"enforce_eager": True, "enable_chunked_prefill": False, "block_size": 32}
    return options
