"""What the server knows of its model's thinking, and what it says of it at start."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.controls import Template
from service.controls.effort import EFFORTS
from stepgrpo_core import ExitSettings
from stepgrpo_core.families import Family, in_family
from stepgrpo_core.prompts import turn_of
from stepgrpo_core.thinking import (
    Writing,
    efforts_of,
    family_of,
    nearest_efforts,
    switches_of,
    thinking_of,
    writing_of,
)

__all__ = ["Model", "model_of"]

HARMONY = "gpt-oss"
HARMONY_EFFORTS = ("low", "medium", "high")

_log = logging.getLogger("vllm.stepgrpo")  # below vLLM's logger, so its format and level apply


@dataclass(frozen=True, slots=True)
class Model:
    """The served model, as far as its thinking goes."""

    settings: ExitSettings
    """The server's defaults with the texts of the model's family."""
    writing: Writing | None
    """None: it does not think."""
    template: Template
    turn: tuple[int, ...] = ()
    """Tokens that begin an assistant's message whose thinking needs no start."""


def model_of(
    tokenizer: Any,
    settings: ExitSettings,
    *,
    family: str | None = None,
    families: Mapping[str, Family],
    chat_template: str | None = None,
) -> Model:
    """What a tokenizer tells of its model, and logs. `family` names the model's, of `families` of
    the operator's or the built-in ones; None: the tokenizer tells.

    Raises InvalidSetting for a family that does not fit, for several that do, and for a closing
    text that does not close.
    """
    switches = _switches(tokenizer, chat_template)
    found = family_of(tokenizer, family, families)
    if found is None:
        _log.warning("The tokenizer has no known tokens of thinking, or is no fast one: no exits.")
        efforts = _efforts(tokenizer, None, chat_template, switches)
        return Model(settings, None, Template(switches, thinks=False, efforts=efforts))
    settings = in_family(settings, found)
    thinking = thinking_of(tokenizer, found, settings.closing_text)
    _log.info(
        "Thinking as of family %s (%s): %r to %r; switched off by %s.",
        found.name,
        "named by --exit-family" if family else "recognised by its tokens",
        found.start,
        found.end,
        ", ".join(switches) or "nothing, a budget of 0 closes it at once",
    )
    if thinking.closing_ids:
        _log.info("On exit %r is injected, and the answer is generated.", settings.closing_text)
    else:
        _log.warning("Family %s counts only: its thinking is never ended.", found.name)
    turn = turn_of(tokenizer, found, chat_template)
    efforts = _efforts(tokenizer, found, chat_template, switches)
    return Model(
        settings, writing_of(tokenizer, thinking), Template(switches, efforts=efforts), turn
    )


def _efforts(
    tokenizer: Any, family: Family | None, chat_template: str | None, switches: tuple[str, ...]
) -> dict[str, str | None]:
    """What the template is told for efforts that it does not know."""
    _, *names = EFFORTS  # none is a switch, and near to nothing
    if family is not None and family.name == HARMONY:  # which vLLM writes without the template
        unknown = nearest_efforts(names, HARMONY_EFFORTS)
    else:
        unknown = efforts_of(tokenizer, names, chat_template, switches)
        unknown |= efforts_of(tokenizer, EFFORTS[:1], chat_template, switches)
    if unknown:
        told = ", ".join(f"{name} as {each or 'nothing'}" for name, each in unknown.items())
        _log.info("Efforts that the chat template does not know are told it so: %s.", told)
    return unknown


def _switches(tokenizer: Any, chat_template: str | None) -> tuple[str, ...]:
    try:
        return switches_of(tokenizer, chat_template)
    except Exception as error:  # noqa: BLE001 - a template is a program of its own
        _log.warning("The chat template failed (%s): it is taken to have no switch.", error)
        return ()
