"""vLLM's reasoning parser: it determines what chat responses return as reasoning.

Most parsers take all text before the end of thinking for reasoning, with or without a start.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vllm.reasoning import ReasoningParser, ReasoningParserManager

__all__ = ["ResponseParser"]

_TEXT = "x"
_KNOWN = 64  # cached parsers
_LONGEST = 1000  # characters of a cache key


class ResponseParser:
    """Tests the parser `name` (``--reasoning-parser``; "": none).

    A parser's behavior can depend on the chat template arguments of a request, so results are
    cached by them.
    """

    def __init__(self, name: str, tokenizer: Any, model_config: Any) -> None:
        self.name = name
        self._tokenizer, self._model_config = tokenizer, model_config
        self._known: dict[str, ReasoningParser | None] = {}

    def reads_unopened(
        self, options: Mapping[str, Any], prompt_ids: Sequence[int] | None = None
    ) -> bool:
        """Return whether the parser takes text without a start of thinking for reasoning.

        `prompt_ids` are given for streams, whose parsers see the prompt. `options` are the parser
        arguments of the request. Return False if the parser cannot be constructed or raises.
        """
        parser = self._reader(options)
        if parser is None or prompt_ids is None:
            return parser is not None
        return not parser.is_reasoning_end(prompt_ids)

    def _reader(self, options: Mapping[str, Any]) -> ReasoningParser | None:
        kind = json.dumps(options, sort_keys=True, default=repr)
        if kind in self._known:
            return self._known[kind]
        found = self._made(options)
        if len(kind) <= _LONGEST and len(self._known) < _KNOWN:
            self._known[kind] = found
        return found

    def _made(self, options: Mapping[str, Any]) -> ReasoningParser | None:
        """Return the parser if it takes text without a start for reasoning; None otherwise."""
        try:
            made = ReasoningParserManager.get_reasoning_parser(self.name)
            parser = made(self._tokenizer, model_config=self._model_config, **options)
            ids = self._tokenizer.encode(_TEXT, add_special_tokens=False)
            delta = parser.extract_reasoning_streaming("", _TEXT, _TEXT, [], ids, ids)
        except Exception:  # noqa: BLE001 - parsers, also an operator's own, may raise anything
            return None
        return parser if delta is not None and delta.reasoning else None
