"""The text of single tokens, as a server streams it."""

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from vllm.outputs import RequestOutput

__all__ = ["Delivered", "TokenTexts"]

CONTEXT = 16
"""Prompt tokens that are decoded before the first generated one. Decoding a whole long prompt takes
most of a millisecond, and only an incomplete character at its end matters."""
INCOMPLETE = "\ufffd"
TOKENIZERS = 8  # whose tables are kept


class TokenTexts:
    """Divides vLLM's text among its tokens, and decodes them where there is no such text.

    The texts are those of vLLM's incremental detokenizer: one increment for each token, "" while a
    character is incomplete.
    """

    def __init__(
        self, tokenizer: Any, prompt_ids: Sequence[int], *, skip_special_tokens: bool
    ) -> None:
        self._tokenizer: Tokenizer = tokenizer.backend_tokenizer
        self._prompt_ids = prompt_ids
        self._skip = skip_special_tokens
        self._table = _table(self._tokenizer, skip_special_tokens)
        self._stream: DecodeStream | None = None
        self._known: list[int] = []  # ids whose texts are known, which the stream has not seen

    def texts(self, ids: Sequence[int], text: str | None = None) -> list[str]:
        """Return one text increment per id.

        `text` is the text that vLLM sent with these ids, all of it; None if it may have kept some.
        """
        if text is not None and (found := self._divided(ids, text)) is not None:
            self._known += ids
            return found
        if self._stream is None:
            self._stream = self._opened()
        step, tokenizer = self._stream.step, self._tokenizer
        for token in self._known:
            step(tokenizer, token)
        self._known.clear()
        # Interned: a long stream keeps the texts of all its tokens, most of which repeat.
        return [sys.intern(step(tokenizer, token) or "") for token in ids]

    def _divided(self, ids: Sequence[int], text: str) -> list[str] | None:
        """Return the parts of a text, one for each token; None if only decoding can tell them."""
        if len(ids) == 1:
            return [sys.intern(text)]
        table = self._table
        parts = [table[each] for each in ids]
        return parts if "".join(parts) == text else None

    def _opened(self) -> DecodeStream:
        end = list(self._prompt_ids[-CONTEXT:])
        if self._tokenizer.decode(end, skip_special_tokens=self._skip).endswith(INCOMPLETE):
            end = list(self._prompt_ids)  # the next text depends on all of them
        return DecodeStream(ids=end, skip_special_tokens=self._skip)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The part of a stream that its client has received."""

    texts: list[str]
    """One for each token."""
    characters: int
    """Characters of `texts` that were sent; a stop string may hold some back."""
    last: RequestOutput | None


class _Table(dict[int, str]):
    """Texts of tokens that follow other text, decoded when they are first asked for."""

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool) -> None:
        super().__init__()
        self._tokenizer, self._skip = tokenizer, skip_special_tokens
        self._before = tokenizer.encode("a", add_special_tokens=False).ids

    def __missing__(self, token: int) -> str:
        stream = DecodeStream(ids=list(self._before), skip_special_tokens=self._skip)
        text = self[token] = sys.intern(stream.step(self._tokenizer, token) or "")
        return text


@functools.lru_cache(maxsize=2 * TOKENIZERS)
def _table(tokenizer: Tokenizer, skip_special_tokens: bool) -> _Table:
    return _Table(tokenizer, skip_special_tokens)
