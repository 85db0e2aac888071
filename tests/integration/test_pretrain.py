"""Training the demo model: deterministic by seed, and a resumed run ends as an unbroken one."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.demo.pipeline import run_demo
from training.demo.pretrain import BaseRecipe, train_base

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.background]

TINY = BaseRecipe(
    steps=4,
    hasty_steps=4,
    practised_steps=4,
    batch_size=4,
    hidden_size=64,
    layers=1,
    save_every=2,
)


def weights(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = load_file(folder / "model.safetensors")
    return found


def equal(left: Path, right: Path) -> bool:
    a, b = weights(left), weights(right)
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def test_a_resumed_run_is_bit_identical(tmp_path: Path) -> None:
    train_base(TINY, tmp_path / "whole", tmp_path / "work")
    train_base(TINY, tmp_path / "again", tmp_path / "other")
    assert equal(tmp_path / "whole", tmp_path / "again")
    last = tmp_path / "other" / "practised"
    os.truncate(last / "checkpoint-4" / "optimizer.pt", 99)  # the one before is whole
    train_base(TINY, tmp_path / "resumed", tmp_path / "other")
    assert equal(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(last)
    shutil.rmtree(tmp_path / "other" / "hasty")
    shutil.rmtree(tmp_path / "other" / "careful" / "checkpoint-4")  # as if killed after step 3
    train_base(TINY, tmp_path / "from the first stage", tmp_path / "other")
    assert equal(tmp_path / "whole", tmp_path / "from the first stage")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    assert model.config.model_type == "qwen3"
    assert model.config.use_cache
    assert AutoTokenizer.from_pretrained(tmp_path / "whole").chat_template


def test_another_recipe_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"steps": 1}')
    with pytest.raises(ValueError, match="another recipe"):
        run_demo(tmp_path, seed=0, steps=2, problems=10)
