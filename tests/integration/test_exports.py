"""What a run leaves under the state-dict types of accelerate's presets, on sharded weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from training.config.layers import PRESETS

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.background]

ROOT = Path(__file__).parents[2]
FILES = {path.stem: yaml.safe_load(path.read_text()) for path in PRESETS.glob("accelerate/*.yaml")}
PRESET_TYPES = {
    config["fsdp_config"]["fsdp_state_dict_type"]
    for config in FILES.values()
    if config["distributed_type"] == "FSDP"
}


def exported(kind: str, output: Path) -> dict[str, object]:
    """Train and export on two processes; the script's findings."""
    sharding = {
        "ACCELERATE_USE_FSDP": "true",
        "ACCELERATE_USE_CPU": "true",
        "FSDP_VERSION": "2",
        "FSDP_STATE_DICT_TYPE": kind,
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
    }
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [sys.executable, *launch, "-m", "tests.support.runs.sharded_exports", str(output)],
        check=False,
        cwd=ROOT,
        env=os.environ | sharding | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads((output / "found.json").read_text())
    return found


@pytest.mark.parametrize("kind", sorted(PRESET_TYPES | {"SHARDED_STATE_DICT"}))
def test_a_sharded_run_leaves_its_whole_model_and_resumes_without_a_further_step(
    kind: str, tmp_path: Path
) -> None:
    found = exported(kind, tmp_path)
    assert found["sharded"] == "DTensor"
    assert found["steps"] == 2
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    folders = tmp_path, tmp_path / "again"
    weights, again = (load_file(each / "model.safetensors") for each in folders)
    assert weights.keys() == model.state_dict().keys()
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    # What transformers writes by itself: the reason for the presets' type, and for `export`.
    alone = (tmp_path / "bare" / "model.safetensors").exists()
    assert alone == (kind == "FULL_STATE_DICT")


def test_presets_gather_whole_weights_when_they_save() -> None:
    assert {"FULL_STATE_DICT"} == PRESET_TYPES
    zero = [each for each in FILES.values() if each["distributed_type"] == "DEEPSPEED"]
    assert all(each["deepspeed_config"]["zero3_save_16bit_model"] for each in zero)
