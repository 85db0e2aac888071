"""Shipped presets: every one loads, alone or on a base, and says where it is from."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from transformers import PretrainedConfig, Qwen2Config, Qwen3Config

from stepgrpo_core.rewards import REWARDS
from training.config.layers import PRESETS
from training.config.schema import dump_config, load_config, preset_names
from training.dry_run import Machine, Shape, memory_lines
from training.grpo.train import arguments

BASES = [name for name in preset_names() if "/" not in name]
METHODS = [name for name in preset_names() if name.startswith("methods/")]
RUNS = [[base] for base in BASES] + [
    [base, method] for base in ("demo", "qwen3-8b") for method in METHODS
]


def qwen3(width: int, inner: int, layers: int, heads: int) -> PretrainedConfig:
    return Qwen3Config(
        vocab_size=151_936,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
    )


ACCELERATE = sorted((PRESETS / "accelerate").glob("*.yaml"))


def test_every_shipped_file_is_a_base_a_method_or_for_accelerate() -> None:
    assert len(list(PRESETS.rglob("*.yaml"))) == len(BASES) + len(METHODS) + len(ACCELERATE)
    qwen3 = {f"qwen3-{size}" for size in ("1.7b", "4b", "8b", "8b-lora", "14b", "32b")}
    assert {"demo", "demo-lora", "r1-distill-7b", *qwen3} == set(BASES)


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


PAPERS_BATCHES = {"qwen3-8b": 8, "r1-distill-7b": 8, "qwen3-14b": 16, "qwen3-32b": 16}
"""Presets and the GPUs that they are written for."""


@pytest.mark.parametrize("name", PAPERS_BATCHES)
def test_the_papers_batches_come_out_on_the_gpus_that_a_preset_is_for(name: str) -> None:
    trl = load_config([name]).trl
    device = PAPERS_BATCHES[name] * trl["per_device_train_batch_size"]
    assert device * trl["steps_per_generation"] == 512 * trl["num_generations"]
    assert device * trl["gradient_accumulation_steps"] == 128 * trl["num_generations"]
    assert trl["max_steps"] == 100 * 512 / 128


def test_the_smaller_qwens_differ_in_name_and_output_only() -> None:
    large = load_config(["qwen3-8b"])
    for size in ("1.7b", "4b"):
        small = load_config([f"qwen3-{size}"])
        assert small.model.name == f"Qwen/Qwen3-{size.upper()}"
        assert dataclasses.replace(small, output=large.output, model=large.model) == large


SHAPES: dict[str, tuple[PretrainedConfig, int]] = {
    "qwen3-14b": (qwen3(5120, 17_408, 40, 40), 16),
    "qwen3-32b": (qwen3(5120, 25_600, 64, 64), 16),
    "qwen3-8b-lora": (qwen3(4096, 12_288, 36, 32), 1),
    "r1-distill-7b": (
        Qwen2Config(
            vocab_size=152_064,
            hidden_size=3584,
            intermediate_size=18_944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
        ),
        8,
    ),
}
"""Published shapes, and the GPUs of 80 GiB that the presets are written for."""


@pytest.mark.parametrize("name", SHAPES)
def test_presets_that_were_never_run_fit_their_gpus_by_estimate(name: str) -> None:
    shape, processes = SHAPES[name]
    text = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
    assert "Never run." in " ".join(text.replace("#", "").split())
    config = load_config([name], ["trl.bf16=false"])
    args = arguments(config)
    args.bf16 = True  # which this machine may not know
    lines = memory_lines(config, args, Shape.of(shape), Machine(processes, 80.0))
    said = "\n".join(lines)
    numbers = re.findall(r"(?:reference model|unit|whole head,):? ([0-9.]+) GiB", said)
    engine = 80 * args.vllm_gpu_memory_utilization if args.vllm_mode == "colocate" else 0
    assert sum(map(float, numbers)) + engine < 76
    assert "does not start" not in said


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_accelerate_takes_its_files(path: Path) -> None:
    from accelerate.commands.config.config_args import ClusterConfig  # noqa: PLC0415 - slow
    from accelerate.commands.launch import launch_command_parser  # noqa: PLC0415

    config = ClusterConfig.from_yaml_file(str(path))  # raises for keys that it does not know
    assert config.distributed_type.value == yaml.safe_load(path.read_text())["distributed_type"]
    assert config.num_processes == config.num_machines * (1 if path.stem == "one-gpu" else 8)
    known = {action.dest for action in launch_command_parser()._actions}
    assert config.fsdp_config.keys() | config.deepspeed_config.keys() <= known
