"""Start and end of thinking in vLLM's own reasoning parsers."""

import logging
from dataclasses import dataclass
from typing import Any

from vllm.reasoning import ReasoningParserManager

__all__ = ["Parser", "parser_of"]

_log = logging.getLogger("vllm.stepgrpo")  # below vLLM's logger, so its format and level apply


@dataclass(frozen=True, slots=True)
class Parser:
    """A reasoning parser and its marks of thinking."""

    name: str
    start: str | None
    """None if the parser does not expose it."""
    end: str | None


def parser_of(name: str | None, tokenizer: Any) -> Parser | None:
    """Return the parser of ``--reasoning-parser``; None without one."""
    if not name:
        return None
    try:
        made = ReasoningParserManager.get_reasoning_parser(name)(tokenizer)
        return Parser(name, made.reasoning_start_str, made.reasoning_end_str)
    except Exception as error:  # noqa: BLE001 - parsers are plug-ins and may raise anything
        _log.warning("Reasoning parser %s cannot be asked for its marks: %s", name, error)
        return Parser(name, None, None)
