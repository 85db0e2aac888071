"""Prompts of users, to calibrate with; read before anything slow is loaded."""

import json
from pathlib import Path

__all__ = ["BadPrompts", "read_prompts"]


class BadPrompts(ValueError):
    """A prompt file has no line, or one that is no prompt."""


def read_prompts(path: Path) -> list[str]:
    """User messages from a JSONL file of ``{"prompt": "..."}``; names file and line of a fault."""
    prompts: list[str] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BadPrompts(f"{path}: {error}; write it in UTF-8") from error
    if not lines:
        raise BadPrompts(f"{path} is empty; each line must be {{'prompt': 'text'}}")
    for number, line in enumerate(lines, start=1):
        try:
            prompts.append(_prompt(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            fault = f"{path}:{number}: {error!r}; each line must be {{'prompt': 'text'}}"
            raise BadPrompts(fault) from error
    return prompts


def _prompt(row: object) -> str:
    if not isinstance(row, dict) or not isinstance(row["prompt"], str):
        raise TypeError("not an object with a text under 'prompt'")
    return row["prompt"]
