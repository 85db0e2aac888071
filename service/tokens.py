"""What the served model's tokenizer says about thinking, and the text of single tokens."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

from stepgrpo_core import ThinkingFormat
from stepgrpo_core.answers import THINK_END, THINK_START

__all__ = ["TokenTexts", "detect_thinking", "opens_in_thinking"]


def detect_thinking(tokenizer: Any, closing_text: str) -> ThinkingFormat | None:
    """How this tokenizer writes thinking; None if it has no single tokens for it.

    Raises ValueError when `closing_text` does not close the thinking, or does not survive
    encoding and decoding: then ids and text would disagree in every response.
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
        raise ValueError(
            f"the closing text {closing_text!r} becomes {text!r} in this model's tokens; "
            f"it must hold {THINK_END} and survive encoding"
        )
    return ThinkingFormat(start, end, closing)


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


class TokenTexts:
    """The text that each generated token adds, as vLLM's own incremental decoding has it."""

    def __init__(
        self, tokenizer: Any, prompt_ids: Sequence[int], *, skip_special_tokens: bool
    ) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._stream = DecodeStream(ids=list(prompt_ids), skip_special_tokens=skip_special_tokens)

    def texts(self, ids: Sequence[int]) -> list[str]:
        """One increment per id; "" while a character is incomplete."""
        return [self._stream.step(self._tokenizer, token) or "" for token in ids]
