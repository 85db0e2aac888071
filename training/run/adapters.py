"""LoRA adapters merged into their base models, so that they can be used like models."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["as_model", "base_of"]


def base_of(model: str) -> str | None:
    """Return the base model of an adapter's folder; None for anything else."""
    config = Path(model) / "adapter_config.json"
    if not config.is_file():
        return None
    return str(json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"])


@contextlib.contextmanager
def as_model(model: str) -> Iterator[str]:
    """Yield `model` itself, or for an adapter a temporary folder with the merged model."""
    if base_of(model) is None:
        yield model
        return
    from peft import AutoPeftModelForCausalLM  # noqa: PLC0415 - slow to load
    from transformers import AutoTokenizer  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        merged = AutoPeftModelForCausalLM.from_pretrained(model, dtype="auto").merge_and_unload()
        merged.save_pretrained(folder)
        AutoTokenizer.from_pretrained(model).save_pretrained(folder)
        yield folder
