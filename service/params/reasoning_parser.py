"""The start and end of thinking that vLLM's own reasoning parsers look for."""

import logging
from dataclasses import dataclass
from typing import Any

from vllm.reasoning import ReasoningParserManager

__all__ = ["Parser", "parser_of"]

_log = logging.getLogger("vllm.stepgrpo")  # below vLLM's logger, so its format and level apply


@dataclass(frozen=True, slots=True)
class Parser:
    """What a reasoning parser takes for thinking."""

    name: str
    start: str | None
    """None: it does not say."""
    end: str | None


def parser_of(name: str | None, tokenizer: Any) -> Parser | None:
    """The parser of ``--reasoning-parser``; None without one."""
    if not name:
        return None
    try:
        made = ReasoningParserManager.get_reasoning_parser(name)(tokenizer)
        return Parser(name, made.reasoning_start_str, made.reasoning_end_str)
    except Exception as error:  # noqa: BLE001 - any vLLM plug-in; its own start refuses it, or not
        _log.warning("Reasoning parser %s cannot be asked for its marks: %s", name, error)
        return Parser(name, None, None)
