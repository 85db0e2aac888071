"""The way of adapters to the engine: merged copies, from a base that stays as it is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from trl.distributed import DistributedBackend
from trl.generation.vllm_generation import VLLMGeneration

from training.run.upstream_patches import send_merged_copies

MODEL = Path(__file__).parents[2] / "models" / "demo-base"
SYNCS = 6


def generation(dtype: torch.dtype) -> Any:
    """TRL's side of the sync, for a model with an adapter that was trained a little."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=dtype)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    state = SimpleNamespace(deepspeed_plugin=None, fsdp_plugin=None)
    found = object.__new__(VLLMGeneration)  # without an engine
    found.model = model
    found.accelerator = SimpleNamespace(state=state)
    found._dist = DistributedBackend(found.accelerator)
    return found


def base_weights(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: value.detach().clone()
        for name, value in model.named_parameters()
        if "lora_" not in name
    }


def sync(found: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in found._iter_named_params()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_base_of_an_adapter_is_bit_for_bit_the_same_after_many_syncs(
    dtype: torch.dtype,
) -> None:
    found = generation(dtype)
    before = base_weights(found.model)
    send_merged_copies(found)
    first = sync(found)
    for _ in range(SYNCS):
        last = sync(found)
    assert same(base_weights(found.model), before)
    assert same(first, last)


def test_the_engine_gets_what_is_merged_in_float32_and_rounded_once() -> None:
    found = generation(torch.bfloat16)
    send_merged_copies(found)
    sent = sync(found)
    exact = found.model.float().merge_and_unload().state_dict()
    assert sent.keys() == exact.keys() - {"lm_head.weight"}  # tied to the embedding
    assert all(torch.equal(value, exact[name].to(torch.bfloat16)) for name, value in sent.items())


def test_the_names_are_those_of_trl() -> None:
    theirs = sync(generation(torch.float32))
    found = generation(torch.float32)
    send_merged_copies(found)
    ours = sync(found)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], atol=1e-6)


def test_trl_still_changes_a_bfloat16_base_or_the_patch_can_go() -> None:
    found = generation(torch.bfloat16)
    before = base_weights(found.model)
    for _ in range(2):
        sync(found)
    assert not same(base_weights(found.model), before)


def test_a_model_without_adapters_keeps_the_way_of_trl() -> None:
    found = generation(torch.float32)
    found.model = found.model.unload()
    send_merged_copies(found)
    assert "_iter_named_params" not in vars(found)
