"""What decides how requests are dealt and served, by name: facts of a stratum."""

import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vllm

from service.params.limits import ProbeLimits
from service.savings.plan import Plan
from stepgrpo_core import ExitSettings

__all__ = ["engine_facts", "settings_facts", "text_digest", "weights_digest"]

_OF_MODEL = {".bin", ".gguf", ".jinja", ".json", ".model", ".pt", ".safetensors"}
"""Ends of the names of files that decide what a model says."""
_OF_PLAN = ("holdout", "holdout_base", "pairs", "pairs_base", "pairs_url")
_NOT_SHOWN = {"pairs_url", "verifier_url"}  # reports show facts

BLOCKS, BLOCK_BYTES = 64, 4096
"""Read of a large file, evenly spread: training changes nearly every weight."""
DIGEST_BYTES = 8


def text_digest(text: str) -> str:
    """A few characters that stand for a text."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def settings_facts(
    plan: Plan, settings: ExitSettings, limits: ProbeLimits, effort: Mapping[str, Any]
) -> dict[str, Any]:
    """Of what the operator has set."""
    found = {name: getattr(plan, name) for name in _OF_PLAN}
    for section in (settings, limits):
        found |= {each.name: getattr(section, each.name) for each in dataclasses.fields(section)}
    for name in _NOT_SHOWN & found.keys():
        found[name] = found[name] and text_digest(found[name])
    found = {name: [*v] if isinstance(v, tuple) else v for name, v in found.items()}
    return found | {"effort": {**effort}, "stepgrpo": importlib.metadata.version("stepgrpo")}


def engine_facts(vllm_config: Any, chat_template: str | None) -> dict[str, Any]:
    """Of the engine and its model, beside the weights; `chat_template` is one that replaces the
    model's own."""
    model = vllm_config.model_config
    return {
        "vllm": vllm.__version__,
        "model": None if Path(model.model).exists() else model.model,
        "revision": getattr(model.hf_config, "_commit_hash", None) or model.revision,
        "dtype": str(model.dtype),
        "quantization": model.quantization,
        "max_model_len": model.max_model_len,
        "sampling": model.get_diff_sampling_param(),
        "chat_template": chat_template and text_digest(chat_template),
    }


def weights_digest(path: Path) -> str:
    """A digest of a model's, an adapter's or a calibration's files; empty where there are none, as
    of a name on a hub."""
    files = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    read = False
    for each in files:
        if each.is_file() and (each == path or each.suffix in _OF_MODEL):
            size = each.stat().st_size
            found.update(f"{each.name} {size}\n".encode())
            _add_blocks(found, each, size)
            read = True
    return found.hexdigest() if read else ""


def _add_blocks(to: "hashlib.blake2b", path: Path, size: int) -> None:
    whole = size <= BLOCKS * BLOCK_BYTES
    starts = (
        [0] if whole else [each * (size - BLOCK_BYTES) // (BLOCKS - 1) for each in range(BLOCKS)]
    )
    with path.open("rb") as file:
        for start in starts:
            file.seek(start)
            to.update(file.read(size if whole else BLOCK_BYTES))
