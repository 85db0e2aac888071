"""Prompts: the only module that renders user messages, and files of prompts for calibration."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepgrpo_core import InvalidSetting

__all__ = [
    "PLAIN",
    "BadPrompts",
    "PromptTemplate",
    "add_prompt_flags",
    "prompt_template_of",
    "read_prompts",
]

Messages = Sequence[Mapping[str, Any]]


class BadPrompts(ValueError):
    """A prompt file is empty, or one of its lines is not a prompt."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """Template that turns a user message into a prompt; training and evaluation must use the same
    one."""

    system_prompt: str | None = None
    """Text of a system message before the user message; None: the chat template's own, if it has
    one."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the model's chat template, such as ``enable_thinking``."""

    def messages(self, prompt: str) -> list[dict[str, str]]:
        """Return the conversation of system message and `prompt`."""
        user = {"role": "user", "content": prompt}
        if self.system_prompt is None:
            return [user]
        return [{"role": "system", "content": self.system_prompt}, user]

    def render(self, tokenizer: Any, prompt: str | Messages) -> tuple[int, ...]:
        """Return token ids of a user message or a conversation, up to the header of the answer."""
        messages = self.messages(prompt) if isinstance(prompt, str) else list(prompt)
        ids: list[int] = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False, **self.chat_template_kwargs
        )
        return tuple(ids)


PLAIN = PromptTemplate()
"""The user message alone, in the unchanged chat template."""


def add_prompt_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a prompt template."""
    parser.add_argument(
        "--system-prompt",
        metavar="TEXT",
        help="System message of every prompt. Use the one the model was trained with "
        "(data.system_prompt). Default: none.",
    )
    parser.add_argument(
        "--chat-template-kwargs",
        metavar="JSON",
        help="Variables of the chat template, such as '{\"enable_thinking\": true}'. Use those "
        "the model was trained with (trl.chat_template_kwargs). Default: none.",
    )


def prompt_template_of(args: argparse.Namespace) -> PromptTemplate:
    """Return the template that the flags describe; raises InvalidSetting."""
    text = args.chat_template_kwargs
    try:
        variables = json.loads(text or "{}")
    except ValueError as error:
        raise InvalidSetting("--chat-template-kwargs", text, f"write JSON ({error})") from error
    if not isinstance(variables, dict):
        raise InvalidSetting("--chat-template-kwargs", text, "write a JSON object")
    return PromptTemplate(args.system_prompt, variables)


def read_prompts(path: Path) -> list[str]:
    """Return user messages from a JSONL file of ``{"prompt": "..."}``; raises BadPrompts, which
    names file and line."""
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
