"""What would spoil a run, or end it after hours, is refused before anything is loaded."""

import sys

import pytest
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from tests.support.zygote import run
from training.config.checks import check_reporting
from training.config.schema import InvalidConfig, load_config

GENERATION = ("trl.steps_per_generation=4", "trl.gradient_accumulation_steps=1")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("trl.repetition_penalty=1.3",), "repetition_penalty=1.3 .* would not be the trainer's"),
        (("trl.repetition_penalty=0.9",), "repetition_penalty=0.9"),
        (("trl.top_p=0.9",), "top_p=0.9"),
        (("trl.top_k=20",), "top_k=20"),
        (("trl.min_p=0.1",), "min_p=0.1"),
        (("trl.generation_kwargs={seed: 1}",), "generation_kwargs"),
        (("trl.vllm_enable_sleep_mode=true",), "vllm_enable_sleep_mode"),
        (("trl.vllm_importance_sampling_mode=sequence_mask",), "use token_truncate"),
        (("trl.vllm_structured_outputs_regex=a+",), "rollouts do not carry it"),
        (
            ("trl.vllm_tensor_parallel_size=2",),
            "tensor_parallel_size=2 .* use 1, or vllm_mode",
        ),
        ((*GENERATION, "trl.save_strategy=epoch"), "save_strategy='epoch' .* multiple of 4"),
        ((*GENERATION, "trl.save_strategy=best"), "save_strategy='best' .* multiple of 4"),
        (("trl.num_iterations=3", "trl.save_strategy=epoch"), "save_strategy='epoch'"),
        (("trl.num_iterations=3",), "save_steps=20 .* use a multiple of 3"),
        (("trl.max_completion_length=2000",), "vllm_max_model_length=1024 .* need 2128 or more"),
        (("data.max_prompt_tokens=800",), "vllm_max_model_length=1024 .* need 1312 or more"),
        (("trl.vllm_max_model_length=600",), "vllm_max_model_length=600 .* need 640 or more"),
        (("trl.max_completion_length=null",), "max_completion_length=None .* 1 or more tokens"),
        (("trl.eval_strategy=steps",), "eval_strategy='steps' .* by stepgrpo-train eval"),
        (("trl.eval_on_start=true",), "eval_on_start=True"),
        (("trl.save_total_limit=1",), "save_total_limit=1 .* use 2 or more"),
        (("trl.resume_from_checkpoint=x",), "belongs to the run: pass --resume"),
    ],
)
def test_a_setting_that_would_spoil_a_run_is_refused_when_it_is_read(
    overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        load_config(["demo"], overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.trl.eval_strategy=epoch", "sft.trl.eval_strategy='epoch'"),
        ("sft.trl.save_total_limit=1", "sft.trl.save_total_limit=1"),
        ("trl.max_completion_length=2000", "vllm_max_model_length=1024"),
    ],
)
def test_a_fine_tuning_is_looked_at_in_the_same_way(override: str, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        load_config(["demo", "methods/deer-sft"], [override])


def test_the_paper_s_preset_with_longer_completions_says_what_length_it_needs() -> None:
    with pytest.raises(InvalidConfig, match=r"vllm_max_model_length=18944 .* need 34816 or more"):
        load_config(["qwen3-8b"], ["trl.max_completion_length=32768"])
    longer = ["trl.max_completion_length=32768", "trl.vllm_max_model_length=35328"]
    assert load_config(["qwen3-8b"], longer).trl["vllm_max_model_length"] == 35_328


@pytest.mark.parametrize(
    "overrides",
    [
        ("trl.vllm_max_model_length=640",),
        ("trl.vllm_max_model_length=null", "trl.max_completion_length=2000"),
        ("trl.save_strategy=epoch",),
        (*GENERATION, "trl.save_strategy=no"),
        ("trl.vllm_mode=server", "trl.vllm_tensor_parallel_size=2"),
        ("trl.repetition_penalty=1.3", "trl.vllm_importance_sampling_correction=false"),
    ],
)
def test_what_harms_nothing_is_taken(overrides: tuple[str, ...]) -> None:
    load_config(["demo"], overrides)


def test_a_command_refuses_at_print_config_what_the_run_would_refuse() -> None:
    command = [sys.executable, "-m", "training.cli", "grpo", "--config", "demo", "--print-config"]
    done = run([*command, "trl.vllm_tensor_parallel_size=2"], timeout=120)
    assert done.returncode == 1
    assert not done.stdout
    assert "trl.vllm_tensor_parallel_size=2 is invalid" in done.stderr


def test_an_item_of_a_list_is_changed_by_its_place() -> None:
    config = load_config(["demo"], ["data.train.0.limit=5", "data.exclude.0.demo=7"])
    assert (config.data.train[0].demo, config.data.train[0].limit) == (2000, 5)
    assert (config.data.exclude[0].demo, config.data.exclude[0].demo_split) == (7, "test")
    with pytest.raises(InvalidConfig, match=r"override 'data.train.1.limit=5': data.train.1 is no"):
        load_config(["demo"], ["data.train.1.limit=5"])
    with pytest.raises(InvalidConfig, match=r"data.train.0.limits is unknown.*'limit'"):
        load_config(["demo"], ["data.train.0.limits=5"])


def test_a_tracker_that_is_not_installed_is_named_with_those_that_are() -> None:
    route = ("trl", "report_to")
    missing = sorted(set(INTEGRATION_TO_CALLBACK) - set(get_available_reporting_integrations()))
    assert missing
    with pytest.raises(InvalidConfig, match=rf"report_to='{missing[0]}' .* pip install it"):
        check_reporting(["tensorboard", missing[0]], route)
    with pytest.raises(InvalidConfig, match=r"report_to='tensorbord' .* 'tensorboard'"):
        check_reporting("tensorbord", route)
    harmless: tuple[str | list[str] | None, ...] = ("none", "all", None, [], "tensorboard")
    for fine in harmless:
        check_reporting(fine, route)
