"""The text of single tokens, as a server streams it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers.decoders import DecodeStream
from vllm.outputs import CompletionOutput, RequestOutput

__all__ = ["Delivered", "TokenTexts"]

CONTEXT = 16
"""Prompt tokens that are decoded before the first generated one. Decoding a whole long prompt takes
most of a millisecond, and only an incomplete character at its end matters."""
INCOMPLETE = "\ufffd"


class TokenTexts:
    """Decodes generated tokens one by one, like vLLM's incremental detokenizer."""

    def __init__(
        self, tokenizer: Any, prompt_ids: Sequence[int], *, skip_special_tokens: bool
    ) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        decode = self._tokenizer.decode
        end = list(prompt_ids[-CONTEXT:])
        if decode(end, skip_special_tokens=skip_special_tokens).endswith(INCOMPLETE):
            end = list(prompt_ids)  # the next text depends on all of them
        self._stream = DecodeStream(ids=end, skip_special_tokens=skip_special_tokens)

    def texts(self, ids: Sequence[int]) -> list[str]:
        """Return one text increment per id; "" while a character is incomplete."""
        step, tokenizer = self._stream.step, self._tokenizer
        # Interned: a long stream keeps the texts of all its tokens, most of which repeat.
        return [sys.intern(step(tokenizer, token) or "") for token in ids]


@dataclass(slots=True)
class Delivered:
    """The part of a stream that its client has received."""

    decoder: TokenTexts
    last: RequestOutput | None = None
    ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Texts of `ids`, one each."""
    characters: int = 0
    """Characters of `texts` that were sent; a stop string may hold some back."""

    def note(self, completion: CompletionOutput, output: RequestOutput) -> None:
        """Note that a delta of `output` is sent; its tokens are decoded later, several at once."""
        self.last = output
        self.characters += len(completion.text)
