"""Shipped presets: every one loads, alone or on a base, and says where it is from."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from stepgrpo_core.rewards import REWARDS
from training.config.layers import PRESETS
from training.config.schema import dump_config, load_config, preset_names

BASES = [name for name in preset_names() if "/" not in name]
METHODS = [name for name in preset_names() if name.startswith("methods/")]
RUNS = [[base] for base in BASES] + [
    [base, method] for base in ("demo", "qwen3-8b") for method in METHODS
]
ACCELERATE = sorted((PRESETS / "accelerate").glob("*.yaml"))


def test_every_shipped_file_is_a_base_a_method_or_for_accelerate() -> None:
    assert len(list(PRESETS.rglob("*.yaml"))) == len(BASES) + len(METHODS) + len(ACCELERATE)
    assert {"demo", "demo-lora", "qwen3-1.7b", "qwen3-4b", "qwen3-8b"} == set(BASES)


@pytest.mark.parametrize("names", RUNS, ids="+".join)
def test_every_run_of_presets_loads_and_reads_back_equal(names: list[str], tmp_path: Path) -> None:
    config = load_config(names)
    dumped = tmp_path / "run.yaml"
    dumped.write_text(dump_config(config), encoding="utf-8")
    assert load_config([dumped]) == config


@pytest.mark.parametrize("names", RUNS, ids="+".join)
def test_trl_takes_what_the_presets_give_it(names: list[str], tmp_path: Path) -> None:
    from trl import GRPOConfig, SFTConfig  # noqa: PLC0415 - loads in seconds

    config = load_config(names)
    made = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, **config.trl)
    assert made.top_p == 1  # else the engine's log-probabilities are of another distribution
    assert made.vllm_importance_sampling_mode == "token_truncate"
    assert (
        made.generation_batch_size
        == config.trl["per_device_train_batch_size"] * (config.trl["steps_per_generation"])
    )
    if config.sft:
        SFTConfig(output_dir=str(tmp_path), use_cpu=True, **config.sft.trl)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_where_it_is_from_and_only_step_grpo_truncates(name: str) -> None:
    head = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").split("\nrollout:")[0]
    assert "arXiv" in head
    assert "Not its paper's" in head or name == "methods/grpo"  # which has no constants
    ours = {"step-grpo", "no-step-reward", "all-baseline", "deer-sft"}
    truncates = load_config(["demo", name]).rollout.kind == "truncated"
    assert truncates == (name.removeprefix("methods/") in ours)


def test_every_reward_has_a_method() -> None:
    assert {load_config(["demo", name]).reward.name for name in METHODS} == set(REWARDS)


def test_the_papers_batches_come_out_on_eight_gpus() -> None:
    trl = load_config(["qwen3-8b"]).trl
    device = 8 * trl["per_device_train_batch_size"]
    assert device * trl["steps_per_generation"] == 512 * trl["num_generations"]
    assert device * trl["gradient_accumulation_steps"] == 128 * trl["num_generations"]
    assert trl["max_steps"] == 100 * 512 / 128


def test_the_smaller_qwens_differ_in_name_and_output_only() -> None:
    large = load_config(["qwen3-8b"])
    for size in ("1.7b", "4b"):
        small = load_config([f"qwen3-{size}"])
        assert small.model.name == f"Qwen/Qwen3-{size.upper()}"
        assert dataclasses.replace(small, output=large.output, model=large.model) == large


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_accelerate_takes_its_files(path: Path) -> None:
    from accelerate.commands.config.config_args import ClusterConfig  # noqa: PLC0415 - slow
    from accelerate.commands.launch import launch_command_parser  # noqa: PLC0415

    config = ClusterConfig.from_yaml_file(str(path))  # raises for keys that it does not know
    assert config.distributed_type.value == yaml.safe_load(path.read_text())["distributed_type"]
    assert config.num_processes == config.num_machines * (1 if path.stem == "one-gpu" else 8)
    known = {action.dest for action in launch_command_parser()._actions}
    assert config.fsdp_config.keys() | config.deepspeed_config.keys() <= known
