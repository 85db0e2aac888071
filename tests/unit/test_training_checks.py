"""What is refused before a run starts, and what a dry run says."""

import dataclasses
import inspect
import logging
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer
from trl import GRPOTrainer, SFTTrainer
from trl.generation import vllm_generation
from vllm.model_executor.layers import utils as vllm_layers

from stepgrpo_core.errors import InvalidSetting
from training.config.checks import check_tokenizer
from training.config.schema import InvalidConfig, load_config
from training.dry_run import batch_lines, explain
from training.grpo.train import arguments
from training.rollouts.vllm_engine import format_of
from training.run.upstream_patches import (
    NO_REWARD,
    engine_options,
    options_for,
    quiet_missing_rewards,
)

MODEL = Path(__file__).parents[2] / "models" / "demo-base"


def test_checkpoints_fall_where_a_generation_begins() -> None:
    more = ["trl.steps_per_generation=4", "trl.gradient_accumulation_steps=1", "trl.save_steps=10"]
    with pytest.raises(InvalidConfig, match=r"save_steps=10 .* use a multiple of 4"):
        arguments(load_config(["demo"], more))


def test_sampling_may_be_narrowed_when_nothing_is_corrected_for_it() -> None:
    more = ["trl.top_p=0.9", "trl.vllm_importance_sampling_correction=false"]
    assert arguments(load_config(["demo"], more)).top_p == 0.9


def test_a_marker_that_does_not_survive_the_tokenizer_is_refused() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    form = format_of(tokenizer, "\n</think>\n\n")
    check_tokenizer(tokenizer, form, ["Wait", "等等"])
    lowering = dataclasses.replace(form, encode=lambda text: form.encode(text.lower()))
    with pytest.raises(InvalidSetting, match=r"markers='Wait' .* 'wait' in this model's tokens"):
        check_tokenizer(tokenizer, lowering, ["Wait"])


def test_a_closing_text_that_does_not_close_is_refused() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    with pytest.raises(InvalidSetting, match="must contain </think>"):
        format_of(tokenizer, "\nthe end\n")


def test_a_dry_run_explains_batches_markers_memory_and_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    explain(load_config(["demo"], [f"model.name={MODEL}"]))
    said = capsys.readouterr().out
    for part in (
        "Step-GRPO (arXiv 2604.16890)",
        "'Wait': 1 token",
        "64 completions a generation on 1 process(es): 8 prompts x 8",
        "1.6 M parameters, trained in float32",
        "2000 prompts are 250.0 generations of 8 prompts",
        "Nothing was trained",
    ):
        assert part in said


def test_the_batch_arithmetic_of_the_paper_is_told_for_its_preset() -> None:
    args = arguments(load_config(["qwen3-8b"], ["trl.bf16=false"]))
    assert batch_lines(args)[1].startswith("4 optimizer step(s) a generation, of 1 x 80")


@pytest.mark.parametrize("trainer", [GRPOTrainer, SFTTrainer])
@pytest.mark.parametrize(
    "name",
    [
        *("compute_loss", "log", "_save_checkpoint", "_run_epoch"),
        *("_load_from_checkpoint", "_load_optimizer_and_scheduler", "_load_rng_state"),
    ],
)
def test_what_is_overridden_in_a_trainer_is_still_there(trainer: type, name: str) -> None:
    assert callable(getattr(trainer, name))


def test_patched_names_are_still_there_and_come_back() -> None:
    llm, dispatch = vllm_generation.LLM, vllm_layers.dispatch_cpu_unquantized_gemm
    with engine_options(**options_for("float32", None)):
        assert vllm_generation.LLM.func is llm
        assert vllm_generation.LLM.keywords["dtype"] == "float32"
        patched = vllm_layers.dispatch_cpu_unquantized_gemm
        assert (patched is dispatch) == torch.cuda.is_available()
    assert vllm_generation.LLM is llm
    assert vllm_layers.dispatch_cpu_unquantized_gemm is dispatch


def test_completions_that_a_reward_leaves_out_are_not_printed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert NO_REWARD in inspect.getsource(GRPOTrainer)
    quiet_missing_rewards()
    logger = logging.getLogger(GRPOTrainer.__module__)
    logger.warning("%s for the following kwargs", NO_REWARD)
    logger.warning("another warning")
    assert [record.getMessage() for record in caplog.records] == ["another warning"]
