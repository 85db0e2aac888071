"""How a tokenizer writes thinking, and whether a prompt has opened it.

Tokenizers are duck-typed: `encode`, `decode` and `backend_tokenizer.token_to_id`, as every fast
tokenizer of transformers has them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from stepgrpo_core.answers import THINK_END, THINK_START
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.events import ThinkingFormat

__all__ = [
    "Writing",
    "continues_thinking",
    "detect_thinking",
    "opens_in_thinking",
    "special_ids",
    "switches_of",
    "writing_of",
]


TOOL_STARTS = (
    "<tool_call>",  # Qwen3, GLM
    "<|tool_calls_section_begin|>",  # Kimi
    "<|tool_call_begin|>",
    "<｜tool▁calls▁begin｜>",  # DeepSeek
    "<｜tool▁call▁begin｜>",
    "<minimax:tool_call>",
    "[TOOL_CALLS]",  # Mistral
)
"""What opens a tool call, where a tokenizer has it as one token."""


@dataclass(frozen=True, slots=True)
class Writing:
    """How a tokenizer writes; a `stepgrpo_core.probing.Writer`."""

    thinking: ThinkingFormat
    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str] | None
    chat: Callable[[str], Sequence[int]] | None


def writing_of(tokenizer: Any, thinking: ThinkingFormat) -> Writing:
    """The tokenizer's own functions; no `chat` without a chat template."""

    @lru_cache(maxsize=16)  # every probe asks the same
    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    def decode(ids: Sequence[int]) -> str:
        text: str = tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def chat(message: str) -> Sequence[int]:
        ids: list[int] = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}],
            add_generation_prompt=True,
            return_dict=False,
            enable_thinking=False,  # Qwen3's template closes the thinking; others ignore it
        )
        return ids

    chats = getattr(tokenizer, "chat_template", None) is not None
    return Writing(thinking, encode, decode, chat if chats else None)


def detect_thinking(tokenizer: Any, closing_text: str) -> ThinkingFormat | None:
    """How this tokenizer writes thinking; None if it has no single tokens for it.

    Raises InvalidSetting when `closing_text` does not close the thinking, or does not survive
    encoding and decoding: then ids and text would disagree in every completion.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return None
    start, end = fast.token_to_id(THINK_START), fast.token_to_id(THINK_END)
    if start is None or end is None:
        return None
    closing = tuple(tokenizer.encode(closing_text, add_special_tokens=False))
    text = tokenizer.decode(closing, skip_special_tokens=False)
    if end not in closing or text != closing_text:
        raise InvalidSetting(
            "closing_text",
            closing_text,
            f"it becomes {text!r} in this model's tokens; it must hold {THINK_END} and survive "
            "encoding",
        )
    found = (fast.token_to_id(each) for each in TOOL_STARTS)
    return ThinkingFormat(start, end, closing, frozenset(i for i in found if i is not None))


def opens_in_thinking(tokenizer: Any, thinking: ThinkingFormat, prompt_ids: Sequence[int]) -> bool:
    """Whether the prompt ends in ``<think>``, with nothing but white space after it.

    Only the end counts: the chat template wrote it. ``<think>`` anywhere else is text.
    """
    tail: list[int] = []
    for token in reversed(prompt_ids[-8:]):
        if token == thinking.start_id:
            return not tokenizer.decode(tail[::-1]).strip()
        tail.append(token)
    return False


SWITCHES = ("enable_thinking", "thinking")
"""Variables with which chat templates switch thinking: Qwen3 and GLM, DeepSeek V3.1 and Kimi."""


def switches_of(tokenizer: Any, chat_template: str | None = None) -> tuple[str, ...]:
    """Those of `SWITCHES` that make a difference to the tokenizer's chat template, or to
    `chat_template` in its place; none without a template."""

    def written(**variables: bool) -> str:
        text: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": "Hello"}],
            chat_template=chat_template,
            add_generation_prompt=True,
            tokenize=False,
            **variables,
        )
        return text

    if chat_template is None and getattr(tokenizer, "chat_template", None) is None:
        return ()
    return tuple(name for name in SWITCHES if written(**{name: False}) != written(**{name: True}))


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the tokens that stand between messages, and never in text."""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return frozenset(token for token, written in added.items() if written.special)


def continues_thinking(
    tokenizer: Any, thinking: ThinkingFormat, prompt_ids: Sequence[int], special: frozenset[int]
) -> bool:
    """Whether the prompt ends inside a thought that has begun, as continued messages do.

    ``<think>`` in an earlier message is text: `special` tokens lie between it and the end.
    """
    for token in reversed(prompt_ids):
        if token == thinking.start_id:
            return not opens_in_thinking(tokenizer, thinking, prompt_ids)
        if token == thinking.end_id or token in special:
            return False
    return False
