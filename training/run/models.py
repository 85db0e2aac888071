"""Checks that a model exists and is long enough, before data and weights are loaded."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from stepgrpo_core.errors import InvalidSetting
from training.run.adapters import base_of

__all__ = ["check_context", "check_model", "tokenizer_of"]

WEIGHTS = ("*.safetensors", "*model*.bin")


def check_model(
    name: str,
    key: str = "model.name",
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    adapters: bool = False,
) -> Any:
    """Return the configuration of a model in a directory or on the hub.

    For an adapter, if `adapters` are allowed, it is the configuration of the base model. Raises
    InvalidSetting with `key`, name and remedy.
    """
    if Path(name).is_dir():
        _check_folder(Path(name), key)
    base = base_of(name)
    if base is not None:
        if not adapters:
            remedy = f"it is an adapter of {base}; name a full model"
            raise InvalidSetting(key, name, remedy)
        return check_model(base, f"{key} (base of {name})")
    try:
        return AutoConfig.from_pretrained(
            name, revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise InvalidSetting(key, name, _remedy(name, error)) from error


def tokenizer_of(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Return the model's tokenizer with left padding, as TRL requires; raises InvalidSetting."""
    try:
        return AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=trust_remote_code, padding_side="left"
        )
    except (OSError, ValueError) as error:
        raise InvalidSetting("model.name", name, _remedy(name, error)) from error


def check_context(found: Any, needed: int, key: str) -> None:
    """Raise InvalidSetting if the model has fewer than `needed` positions.

    vLLM checks models with scaled positions itself.
    """
    text = found.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    scaled = "factor" in (getattr(text, "rope_parameters", None) or {})
    if positions is not None and needed > positions and not scaled:
        remedy = f"the model has {positions} positions; use shorter limits"
        raise InvalidSetting(key, needed, remedy)


def _check_folder(folder: Path, key: str) -> None:
    if not any((folder / each).is_file() for each in ("config.json", "adapter_config.json")):
        remedy = "the directory has neither config.json nor adapter_config.json"
        raise InvalidSetting(key, str(folder), remedy)
    if not any(path.stat().st_size for kind in WEIGHTS for path in folder.glob(kind)):
        raise InvalidSetting(key, str(folder), "the directory holds no weights (*.safetensors)")


def _remedy(name: str, error: Exception) -> str:
    fault = " ".join(str(error).split()).partition(". ")[0]
    if Path(name).is_dir():
        return f"the directory cannot be read as a model ({fault})"
    return (
        f"it is neither a directory nor available on the hub ({fault}); use a path, or "
        "check the name, the network, HF_TOKEN and HF_HUB_OFFLINE"
    )
