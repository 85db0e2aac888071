"""Facts of a stratum: settings and weights that decide how requests are assigned and served, by
name."""

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

_MODEL_SUFFIXES = {".bin", ".gguf", ".jinja", ".json", ".model", ".pt", ".safetensors"}
"""Suffixes of files that affect a model's output."""
_PLAN_FIELDS = ("holdout", "holdout_base", "pairs", "pairs_base", "pairs_url")
_HASHED = {"pairs_url", "verifier_url"}  # reports show facts, but not addresses

BLOCKS, BLOCK_BYTES = 64, 4096  # evenly spaced sample of a file: training changes most weights
DIGEST_BYTES = 8


def text_digest(text: str) -> str:
    """Return a short digest of a text."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def settings_facts(
    plan: Plan, settings: ExitSettings, limits: ProbeLimits, effort: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the operator's settings."""
    found = {name: getattr(plan, name) for name in _PLAN_FIELDS}
    for section in (settings, limits):
        found |= {each.name: getattr(section, each.name) for each in dataclasses.fields(section)}
    for name in _HASHED & found.keys():
        found[name] = found[name] and text_digest(found[name])
    found = {name: [*v] if isinstance(v, tuple) else v for name, v in found.items()}
    return found | {"effort": {**effort}, "stepgrpo": importlib.metadata.version("stepgrpo")}


def engine_facts(vllm_config: Any, chat_template: str | None) -> dict[str, Any]:
    """Return facts of the engine and its model, except weights; `chat_template` overrides the
    model's."""
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
    """Return a digest of the files of a model, adapter or calibration; empty if there are none, as
    for a name on a hub."""
    files = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    read = False
    for each in files:
        if each.is_file() and (each == path or each.suffix in _MODEL_SUFFIXES):
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
