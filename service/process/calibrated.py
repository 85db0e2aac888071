"""The served model that calibrated thresholds are for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from service.config.server import Defaults
from service.config.thresholds import AGAIN, refusal_of
from service.engine.policy_resolver import Calibrated
from service.savings.facts import opened
from stepgrpo_core.families.templates import source_of
from stepgrpo_core.fingerprint import fingerprint, is_model_file, text_fingerprint

__all__ = ["calibrated_model"]


def calibrated_model(
    defaults: Defaults, models: Mapping[str | None, str], tokenizer: Any, template: str | None
) -> Calibrated | None:
    """Return the server's thresholds with the model that was calibrated; None without any.

    `models` has the folder, or name on a hub, of each adapter, and of the model itself under None.
    Raises BadOption if no model is the calibrated one, or if the chat template is another.
    """
    found, path = defaults.calibrated, defaults.thresholds
    if found is None or path is None:
        return None
    base = _fingerprint(models[None], "config.json")
    served = {
        name: f"{base}+{_fingerprint(model, 'adapter_config.json')}" if name else base
        for name, model in models.items()
    }
    matching = [name for name, weights in served.items() if weights == found.weights]
    if not matching:
        remedy = (
            f"it was calibrated for {found.model} with the fingerprint {found.weights}, and this "
            f"server has {', '.join(served.values())}; {AGAIN} for the model that is served"
        )
        raise refusal_of(path, remedy)
    source = source_of(tokenizer, template)
    if found.chat_template != (text_fingerprint(source) if source else ""):
        raise refusal_of(path, f"it was calibrated with another chat template; {AGAIN}")
    return Calibrated(found, matching[0])


def _fingerprint(model: str, config: str) -> str:
    """Return the fingerprint of a model's files, in a folder or in the cache of a hub."""
    folder = Path(model)
    if not folder.is_dir():
        file = cached_file(model, config, local_files_only=True)
        folder = Path(file).parent
    files = sorted(each for each in folder.iterdir() if is_model_file(each.name))
    return fingerprint(opened(files))
