"""The served model's thinking format, detected and logged at start."""

import dataclasses
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.params import Template
from service.params.reasoning_parser import Parser
from stepgrpo_core import ExitSettings, InvalidSetting
from stepgrpo_core.families.prompts import turn_header
from stepgrpo_core.families.table import Family, apply_family
from stepgrpo_core.families.templates import efforts_of, render_of, source_of, word_of
from stepgrpo_core.families.templates import switches_of as other_switches_of
from stepgrpo_core.families.thinking import (
    TokenizerFormat,
    adapt_family,
    family_of,
    switches_of,
    thinking_of,
    tokenizer_format,
    writes,
)

__all__ = ["Model", "model_of"]

_log = logging.getLogger("vllm.stepgrpo")  # below vLLM's logger, so its format and level apply

HARMONY = "gpt-oss"
"""The family whose prompts vLLM renders itself, without the chat template."""
HARMONY_EFFORTS = ("low", "medium", "high")
_GENERIC = ("think", "think-text")
_REMEDY = (
    "how this model writes thinking is not known: name its family by --exit-family, describe it "
    "under families in --exit-config, or name vLLM's parser by --reasoning-parser"
)


@dataclass(frozen=True, slots=True)
class Model:
    """The thinking format of the served model."""

    settings: ExitSettings
    """Server defaults with the texts of the model's family."""
    writing: TokenizerFormat | None
    """None if its family is not known."""
    template: Template
    turn: tuple[int, ...] = ()
    """Tokens that begin an assistant message whose thinking needs no start."""


def model_of(
    tokenizer: Any,
    settings: ExitSettings,
    *,
    family: str | None = None,
    families: Mapping[str, Family],
    chat_template: str | None = None,
    parser: Parser | None = None,
    demanded: bool = False,
) -> Model:
    """Return how the model of a tokenizer writes thinking, and log it.

    `family` names a built-in family or one of the operator's `families`. If None, it is recognized
    by the tokenizer, or else taken from vLLM's reasoning `parser`. `demanded` tells that the
    operator set a policy that exits.

    Raises InvalidSetting for a family that does not fit, for several that do, for a closing text
    that does not close, and for an unknown family if exits are demanded.
    """
    row = family_of(tokenizer, family, families, chat_template)
    if parser is not None and family is None:
        row = _as_parsed(tokenizer, row, parser)
    if row is None:
        if demanded:
            raise InvalidSetting("policy", settings.policy, _REMEDY)
        return Model(settings, None, _unknown(tokenizer, chat_template, parser))
    found = adapt_family(tokenizer, row, chat_template)
    given, settings = settings.closing_text, apply_family(settings, found)
    thinking = thinking_of(tokenizer, found, settings.closing_text)
    template = _template(tokenizer, found, chat_template)
    _log_family(found, template, named=family is not None)
    if parser is not None:
        _compare(found, parser)
    if thinking.closing_ids:
        source = "its family" if found.closing == row.closing else "the chat template"
        if settings.closing_text == given != found.closing:
            source = "closing_text"
        words = "On exit %r is injected (of %s), and the answer is generated."
        _log.info(words, settings.closing_text, source)
    else:
        _log.warning("Family %s counts only: its thinking is never ended.", found.name)
    writing = tokenizer_format(tokenizer, thinking, template.switched(on=False))
    return Model(settings, writing, template, turn_header(tokenizer, found, chat_template))


def _as_parsed(tokenizer: Any, row: Family | None, parser: Parser) -> Family | None:
    """Return the recognized family, or one of the parser's marks if only a generic one fits."""
    start, end = parser.start, parser.end
    if not start or not end or (row is not None and row.name not in _GENERIC):
        return row
    if row is not None and (row.start, row.end) == (start, end):
        return row
    made = Family(f"of parser {parser.name}", start=start, end=end, closing=f"\n{end}\n\n")
    return made if writes(tokenizer, made) else dataclasses.replace(made, text=True)


def _compare(family: Family, parser: Parser) -> None:
    """Log whether the parser finds thinking by the same marks."""
    if not parser.start or not parser.end:
        _log.info("Parser %s does not say how thinking is marked.", parser.name)
        return
    read, written = (parser.start.strip(), parser.end.strip()), (family.start, family.end)
    if read == tuple(each.strip() for each in written):
        _log.info("Parser %s reads thinking by the same marks.", parser.name)
        return
    _log.warning(
        "Parser %s reads thinking from %r to %r, and family %s writes %r to %r: exits and "
        "responses would disagree; name the model's by --exit-family and --reasoning-parser.",
        parser.name,
        *read,
        family.name,
        *written,
    )


def _log_family(family: Family, template: Template, *, named: bool) -> None:
    generic = (
        "any model that marks it so" if family.name in _GENERIC else "recognized by its tokens"
    )
    _log.info(
        "Thinking as of family %s (%s): %r to %r; switched off by %s.",
        family.name,
        "named by --exit-family" if named else generic,
        family.start,
        family.end,
        ", ".join(f"{name}={value!r}" for name, value in template.switched(on=False).items())
        or "nothing, a budget of 0 closes it at once",
    )


def _template(tokenizer: Any, family: Family | None, chat_template: str | None) -> Template:
    by_vllm = family is not None and family.name == HARMONY
    render, source = render_of(tokenizer, chat_template), source_of(tokenizer, chat_template)
    if render is None or source is None:
        return Template()
    if render([{"role": "user", "content": "Hello"}], add_generation_prompt=True) is None:
        _log.warning("The chat template failed for a plain question: it is taken to tell nothing.")
    return Template(
        switches=switches_of(tokenizer, chat_template),
        others=() if family is None else other_switches_of(render, source, family),
        efforts={"reasoning_effort": HARMONY_EFFORTS} if by_vllm else efforts_of(render, source),
        rendered=not by_vllm,
        word=None if family is None else word_of(render, family),
    )


def _unknown(tokenizer: Any, chat_template: str | None, parser: Parser | None) -> Template:
    """Log why the family is unknown; the model thinks if its template mentions thinking."""
    source = source_of(tokenizer, chat_template) or ""
    thinks = parser is not None or re.search("think|reason", source, re.IGNORECASE) is not None
    slow = getattr(tokenizer, "backend_tokenizer", None) is None
    why = "the tokenizer has no tokens of a known family"
    if slow:
        why = "the tokenizer is no fast one of transformers (--tokenizer-mode hf may load one)"
    _log.warning("No thinking is counted or ended, for %s; %s.", why, _REMEDY)
    found = _template(tokenizer, None, chat_template)
    return Template(found.switches, thinks, efforts=found.efforts, known=False)
