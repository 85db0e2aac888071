"""The conditions of a calibration: model, chat template, sampling and settings of the exits."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from transformers.utils import cached_file
from vllm import SamplingParams

from stepgrpo_core import ExitSettings
from stepgrpo_core.families.table import apply_family
from stepgrpo_core.families.templates import source_of
from stepgrpo_core.fingerprint import fingerprint, is_model_file, text_fingerprint
from stepgrpo_core.risk import SAMPLING
from training.rollouts.offline import Engine
from training.run.adapters import base_of

__all__ = ["conditions_of", "texts_of"]


def conditions_of(engine: Engine, model: str, params: SamplingParams) -> dict[str, Any]:
    """Return what identifies the model, its chat template and the sampling, as `Thresholds` has it.

    `model` is a folder or a name on a hub, also of an adapter that `engine` has merged.
    """
    base, source = base_of(model), source_of(engine.tokenizer)
    own = _fingerprint(model, "config.json" if base is None else "adapter_config.json")
    return {
        "model": Path(model).name,
        "weights": own if base is None else f"{_fingerprint(base, 'config.json')}+{own}",
        "chat_template": text_fingerprint(source) if source else "",
        "sampling": {name: getattr(params, name) for name in SAMPLING},
    }


def texts_of(engine: Engine) -> dict[str, str]:
    """Return the texts by which the engine's family ends the thinking and induces answers."""
    found = apply_family(ExitSettings(), engine.form.family)
    return {name: getattr(found, name) for name in ("closing_text", "inducing_prompt")}


def _fingerprint(model: str, config: str) -> str:
    folder = Path(model)
    if not folder.is_dir():
        folder = Path(cached_file(model, config, local_files_only=True)).parent
    return fingerprint(
        _opened(sorted(each for each in folder.iterdir() if is_model_file(each.name)))
    )


def _opened(paths: Iterable[Path]) -> Iterator[tuple[str, BinaryIO]]:
    for each in paths:
        with each.open("rb") as file:
            yield each.name, file
