"""Checks of this machine and this model before a run starts."""

from collections.abc import Sequence
from typing import Any

from transformers.integrations import (
    get_available_reporting_integrations,
    is_flytekit_available,
)
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.names import suggest
from training.config.layers import Route
from training.config.typed import refused
from training.rollouts.batch import Format

__all__ = ["check_reporting", "check_tokenizer", "marker_lines"]


def check_reporting(report_to: str | Sequence[str] | None, route: Route) -> None:
    """Raise InvalidConfig for a tracker that is unknown or not installed."""
    names = [report_to] if isinstance(report_to, str) else report_to or []
    for name in names:
        if name in ("all", "none"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise refused(route, name, suggest(name, INTEGRATION_TO_CALLBACK))
        installed = [*get_available_reporting_integrations(), *["flyte"] * is_flytekit_available()]
        if name not in installed:
            here = ", ".join(installed) or "none of them"
            remedy = f"it is not installed (installed: {here}); pip install it, or use none"
            raise refused(route, name, remedy)


def check_tokenizer(tokenizer: Any, form: Format, markers: Sequence[str]) -> None:
    """Raise InvalidSetting for markers that tokenizing changes, or a tokenizer without EOS."""
    for marker in markers:
        for text in (marker, f" {marker}"):
            back = tokenizer.decode(form.encode(text))
            if back != text:
                remedy = f"{text!r} becomes {back!r} in this model's tokens; leave the marker out"
                raise InvalidSetting("rollout.exit.markers", marker, remedy)
    if tokenizer.eos_token_id is None:
        raise InvalidSetting("tokenizer", tokenizer.name_or_path, "it has no end-of-sequence token")


def marker_lines(form: Format, markers: Sequence[str]) -> list[str]:
    """Return how each marker is tokenized, at the start of a line and within one."""
    return [
        f"{marker!r}: {_count(form, marker)}, after a space {_count(form, ' ' + marker)}"
        for marker in markers
        if not marker.startswith("!")  # an exception to a marker
    ]


def _count(form: Format, text: str) -> str:
    ids = form.encode(text)
    return f"{len(ids)} token{'s' * (len(ids) > 1)} {list(ids)}"
