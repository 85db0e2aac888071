"""The text of single tokens, as a server streams it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers.decoders import DecodeStream
from vllm.outputs import CompletionOutput, RequestOutput

__all__ = ["Passed", "TokenTexts"]

CONTEXT = 16
"""Tokens of a prompt before the first generated one. To decode all of a long prompt takes most of a
millisecond, and only its end can matter: text that ends inside a character."""
INCOMPLETE = "\ufffd"


class TokenTexts:
    """The text that each generated token adds, as vLLM's own incremental decoding has it."""

    def __init__(
        self, tokenizer: Any, prompt_ids: Sequence[int], *, skip_special_tokens: bool
    ) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        decode = self._tokenizer.decode
        end = list(prompt_ids[-CONTEXT:])
        if decode(end, skip_special_tokens=skip_special_tokens).endswith(INCOMPLETE):
            end = list(prompt_ids)  # what follows then depends on all of it
        self._stream = DecodeStream(ids=end, skip_special_tokens=skip_special_tokens)

    def texts(self, ids: Sequence[int]) -> list[str]:
        """One increment per id; "" while a character is incomplete."""
        step, tokenizer = self._stream.step, self._tokenizer
        # Interned: a long stream holds the texts of all its tokens, most of them many times.
        return [sys.intern(step(tokenizer, token) or "") for token in ids]


@dataclass(slots=True)
class Passed:
    """What of a stream has gone to its client already."""

    decoder: TokenTexts
    last: RequestOutput | None = None
    ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Of `ids`, one each."""
    characters: int = 0
    """Of `texts`: a stop string may hold some back."""

    def note(self, completion: CompletionOutput, output: RequestOutput) -> None:
        """Enter that a delta of `output` goes out; its tokens are read later, several at once."""
        self.last = output
        self.characters += len(completion.text)
