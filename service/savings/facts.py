"""Facts of a stratum: settings and weights that decide how requests are assigned and served, by
name."""

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import vllm

from service.params.limits import ProbeLimits
from service.savings.plan import Plan
from stepgrpo_core import ExitSettings
from stepgrpo_core.fingerprint import fingerprint, text_fingerprint

__all__ = ["engine_facts", "opened", "settings_facts", "weights_digest"]

_MODEL_SUFFIXES = {".bin", ".gguf", ".jinja", ".json", ".model", ".pt", ".safetensors"}
"""Suffixes of files that affect a model's output."""
_PLAN_FIELDS = ("holdout", "holdout_base", "pairs", "pairs_base", "pairs_url")
_HASHED = {"pairs_url", "verifier_url"}  # reports show facts, but not addresses


def settings_facts(
    plan: Plan, settings: ExitSettings, limits: ProbeLimits, effort: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the operator's settings."""
    found = {name: getattr(plan, name) for name in _PLAN_FIELDS}
    for section in (settings, limits):
        found |= {each.name: getattr(section, each.name) for each in dataclasses.fields(section)}
    for name in _HASHED & found.keys():
        found[name] = found[name] and text_fingerprint(found[name])
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
        "chat_template": chat_template and text_fingerprint(chat_template),
    }


def weights_digest(path: Path) -> str:
    """Return a digest of the files of a model, adapter or calibration; empty if there are none, as
    for a name on a hub."""
    files = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    kept = (each for each in files if each == path or each.suffix in _MODEL_SUFFIXES)
    return fingerprint(opened(each for each in kept if each.is_file()))


def opened(paths: Iterable[Path]) -> Iterator[tuple[str, BinaryIO]]:
    """Yield the name of each file and the open file, for `fingerprint`."""
    for each in paths:
        with each.open("rb") as file:
            yield each.name, file
