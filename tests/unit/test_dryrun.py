"""What a dry run says of a machine that may be another one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import Qwen3Config
from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE

from training.config.schema import InvalidConfig, load_config
from training.dry_run import Machine, Shape, batch_lines, explain, memory_lines
from training.grpo.train import arguments

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "demo-base"
QWEN3_8B = Qwen3Config(
    vocab_size=151_936,
    hidden_size=4096,
    intermediate_size=12_288,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=40_960,
)


def memory(*more: str, machine: Machine) -> str:
    config = load_config(["qwen3-8b"], ["trl.bf16=false", *more])
    args = arguments(config)
    args.bf16 = True  # which this machine may not know
    return "\n".join(memory_lines(config, args, Shape.of(QWEN3_8B), machine))


def test_the_documented_command_on_eight_gpus_is_explained_with_its_memory() -> None:
    said = memory(machine=Machine(8, 80.0))
    assert "8190.7 M parameters" in said
    # Weights, gradients, two moments and the reference in float32, over eight.
    assert f"reference model: {5 * 4 * 8.1907e9 / 8 / 2**30:.2f} GiB" in said
    # 36 layers of 18 432 tokens and 4 096 units.
    assert "checkpointed, one value per layer and unit: 10.12 GiB" in said
    assert f"tiles of {TOKEN_CHUNK_SIZE} x 32768, 0.50 GiB and the whole head, 2.32 GiB" in said
    # 32 GiB less 15.26 GiB of weights; 144 KiB a token, 2.60 GiB a sequence of 18 944 tokens.
    assert "cache: 6.4 sequences of all 18944 tokens at once, of 320 completions" in said


def test_a_cache_that_holds_no_sequence_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not start with less than one" in memory(machine=Machine(8, 40.0))
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    on_cpus = memory(machine=Machine(1, None))
    assert "1.00 GiB of cache beside them" in on_cpus
    assert "does not start with less than one" in on_cpus


def test_without_checkpoints_activations_are_many_times_as_large() -> None:
    said = memory("trl.gradient_checkpointing=false", machine=Machine(8, 80.0))
    assert "not checkpointed, a rough figure: 172.12 GiB" in said


def test_batches_are_those_of_the_processes_that_are_planned() -> None:
    args = arguments(load_config(["qwen3-8b"], ["trl.bf16=false"]))
    first, second, _ = batch_lines(args, 8)
    assert first.startswith("2560 completions a generation on 8 process(es): 512 prompts x 5, 64")
    assert second.startswith("4 optimizer step(s) a generation, of 1 x 80 x 8 completions")


def test_a_dry_run_with_processes_counts_generations_of_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    explain(load_config(["demo"], [f"model.name={MODEL}"]), processes=4, gpu_gib=24.0)
    said = capsys.readouterr().out
    assert "256 completions a generation on 4 process(es)" in said
    assert "2000 prompts are 62.5 generations of 32 prompts" in said
    assert "of a GPU of 24 GiB" in said


def test_a_dry_run_refuses_a_length_that_the_model_does_not_have() -> None:
    more = [f"model.name={MODEL}", "trl.vllm_max_model_length=4096"]
    with pytest.raises(ValueError, match=r"vllm_max_model_length=4096 .* has 2048 positions"):
        explain(load_config(["demo"], more))


def test_a_dry_run_of_a_fine_tuning_looks_at_its_section() -> None:
    more = [f"model.name={MODEL}", "sft.trl.max_length=100"]
    with pytest.raises(InvalidConfig, match=r"sft.trl.max_length=100 .* use at least 640"):
        explain(load_config(["demo", "methods/deer-sft"], [*more, "sft.trl.bf16=false"]))


@pytest.mark.slow
def test_several_processes_read_the_data_once_and_explain_once() -> None:
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = ["-m", "training.cli", "grpo", "--config", "demo", "--dry-run"]
    done = subprocess.run(
        [sys.executable, *launch, *command, f"model.name={MODEL}", "data.train.0.demo=50"],
        check=False,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("50 read, 50 kept") == 1
    assert done.stdout.count("128 completions a generation on 2 process(es)") == 1


def test_planned_processes_belong_to_a_dry_run() -> None:
    command = [sys.executable, "-m", "training.cli", "grpo", "--config", "demo", "--processes"]
    for words, message in (
        (("8",), "need --dry-run"),
        (("0", "--dry-run"), "--processes=0"),
    ):
        done = subprocess.run(
            [*command, *words], check=False, cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1
        assert message in done.stderr
