"""The text of single tokens, as a server streams it."""

import sys
from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

__all__ = ["TokenTexts"]


class TokenTexts:
    """The text that each generated token adds, as vLLM's own incremental decoding has it."""

    def __init__(
        self, tokenizer: Any, prompt_ids: Sequence[int], *, skip_special_tokens: bool
    ) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._stream = DecodeStream(ids=list(prompt_ids), skip_special_tokens=skip_special_tokens)

    def texts(self, ids: Sequence[int]) -> list[str]:
        """One increment per id; "" while a character is incomplete."""
        step, tokenizer = self._stream.step, self._tokenizer
        # Interned: a long stream holds the texts of all its tokens, most of them many times.
        return [sys.intern(step(tokenizer, token) or "") for token in ids]
