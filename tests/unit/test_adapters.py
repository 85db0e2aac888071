"""An adapter evaluates as the model that it makes of its base."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.evaluation.origin import weights_of
from training.run.adapters import as_model, base_of

MODEL = Path(__file__).parents[2] / "models" / "demo-base"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(MODEL), settings)
    model.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_model_is_itself() -> None:
    assert base_of(str(MODEL)) is None
    with as_model(str(MODEL)) as path:
        assert path == str(MODEL)


def test_an_adapter_is_merged_into_its_base(adapter: Path) -> None:
    assert base_of(str(adapter)) == str(MODEL)
    ids = torch.tensor([[5, 6, 7, 8]])
    with as_model(str(adapter)) as path:
        merged = AutoModelForCausalLM.from_pretrained(path)
        assert AutoTokenizer.from_pretrained(path).chat_template
    base = AutoModelForCausalLM.from_pretrained(MODEL)
    plain = base(ids).logits
    base.load_adapter(str(adapter))
    assert torch.allclose(merged(ids).logits, base(ids).logits, atol=1e-4)
    assert not torch.allclose(merged(ids).logits, plain, atol=1e-2)


def test_figures_know_the_base_of_an_adapter(adapter: Path) -> None:
    before = weights_of(str(adapter))
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace(str(MODEL), str(adapter.parent / "another")))
    assert weights_of(str(adapter)) != before
