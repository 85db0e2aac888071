"""Patches of upstream libraries, each with reason and location.

A test fails if a patched name is gone.
"""

import contextlib
import functools
import logging
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import is_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.distributed.tensor import DTensor
from trl.generation import vllm_generation
from vllm.model_executor.layers import utils as vllm_layers

__all__ = [
    "NO_REWARD",
    "engine_options",
    "options_for",
    "order_by_epoch",
    "quiet_missing_rewards",
    "send_merged_copies",
]

NO_REWARD = "All reward functions returned None"
"""Beginning of TRL's warning about a completion without a reward."""


def quiet_missing_rewards() -> None:
    """Drop TRL's warning about completions without a reward.

    TRL 1.16 (`GRPOTrainer._calculate_rewards`) prints one of them in full, with its rollout, for
    every batch. Rewards may filter completions, and metrics count the unscored ones.
    """
    logging.getLogger("trl.trainer.grpo_trainer").addFilter(_not_about_rewards)


def _not_about_rewards(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(NO_REWARD)


@contextlib.contextmanager
def engine_options(**options: Any) -> Iterator[None]:
    """While active, pass `options` to the vLLM engine that TRL builds.

    TRL 1.16 (`trl/generation/vllm_generation.py`, `VLLMGeneration._init_vllm`) passes a fixed set
    of arguments without dtype and revision, so a float32 model would be sampled in bfloat16. On
    CPUs the engine's weights also stay unpacked, see `_unpacked_weights`.
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
    """Disable the packing of linear weights by vLLM 0.31 on CPUs with AVX-512.

    `dispatch_cpu_unquantized_gemm` deletes some originals, so TRL's `load_weights` fails; of others
    (a head tied to the embedding) the packed copy is not updated, so the engine would sample from
    old weights.
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

    TRL 1.16's `RepeatSampler` (`trl/trainer/utils.py`) draws every epoch from one generator that is
    not in the checkpoints, so a run resumed after its first epoch would get another order.
    """
    original = trainer._get_train_sampler

    def sampler_with_epochs(*args: Any) -> Any:
        sampler = original(*args)
        if sampler.shuffle:
            # The trainer calls this before each epoch, resumed or not.
            sampler.set_epoch = lambda epoch: sampler.generator.manual_seed(sampler.seed + epoch)
        return sampler

    trainer._get_train_sampler = sampler_with_epochs


def send_merged_copies(generation: Any) -> None:
    """Send merged copies of adapted weights to the engine; `generation` is TRL's
    ``VLLMGeneration``.

    For every sync TRL 1.16 (`VLLMGeneration._iter_named_params`) merges adapters into the base and
    unmerges them again. In bfloat16 that rounds twice, and the base drifts away from the one that
    serves the adapter (huggingface/trl#6688). FSDP1, which flattens weights, is left to TRL.
    """
    if is_peft_model(generation.model) and generation._dist.fsdp_version != 1:
        generation._iter_named_params = functools.partial(_merged_copies, generation)


def _merged_copies(generation: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield names and weights for the engine; adapted weights are copies, merged in float32.

    Shards are gathered, so every process must consume the whole iterator.
    """
    model, gather = generation.model, generation._dist.gather_params
    adapted: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            parameter = module.get_base_layer().weight
            adapted.add(id(parameter))
            with gather(list(module.parameters())), torch.no_grad():
                deltas = [module.get_delta_weight(each) for each in module.active_adapters]
                merged = sum((_whole(each).float() for each in deltas), _whole(parameter).float())
                yield _engine_name(generation, f"{name}.weight"), merged.to(parameter.dtype)
    for name, parameter in model.named_parameters():
        skipped = model.prefix in name or "original_module" in name or id(parameter) in adapted
        if not skipped:
            with gather([parameter]):
                yield _engine_name(generation, name), _whole(parameter.data)


def _engine_name(generation: Any, name: str) -> str:
    name = name.removeprefix("base_model.model.").replace(".base_layer", "")
    found: str = generation._fix_param_name_to_vllm(name, ["modules_to_save.default."])
    return found


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return the full tensor of a weight that FSDP2 shards over processes."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def options_for(dtype: str, revision: str | None) -> dict[str, Any]:
    """Return the engine options that TRL does not set."""
    options: dict[str, Any] = {"dtype": dtype, "revision": revision, "enable_prefix_caching": True}
    if not torch.cuda.is_available():
        # Compilation needs a C++ compiler, and vLLM 0.31 on CPUs fails for a seed with chunked
        # prefill ("CPU Generator does not use offset"). Its default block of 128 tokens is longer
        # than the demo's prompts, so no prefix would be cached.
        options |= {"enforce_eager": True, "enable_chunked_prefill": False, "block_size": 32}
    return options
