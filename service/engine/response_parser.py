"""vLLM's reasoning parser: what the responses of chats call reasoning.

Most take whatever comes before the end for reasoning, whether it had a start or not.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vllm.reasoning import ReasoningParser, ReasoningParserManager

__all__ = ["ResponseParser"]

_TEXT = "x"
_KNOWN = 64  # kinds of requests that are remembered
_LONGEST = 1000  # characters of one


class ResponseParser:
    """The parser of that name (``--reasoning-parser``; "": none), looked at once for every kind of
    request: what their bodies say to chat templates makes a difference to parsers."""

    def __init__(self, name: str, tokenizer: Any, model_config: Any) -> None:
        self.name = name
        self._tokenizer, self._model_config = tokenizer, model_config
        self._known: dict[str, ReasoningParser | None] = {}

    def reads_unopened(
        self, options: Mapping[str, Any], prompt_ids: Sequence[int] | None = None
    ) -> bool:
        """Whether text without a start of thinking is reasoning to it, after the prompt for one
        that looks at it, as those of streams do.

        `options` are the request's for parsers. One that cannot be made, or asked, reads none.
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
        """A parser that reads text without a start as reasoning; None if it does not."""
        try:
            made = ReasoningParserManager.get_reasoning_parser(self.name)
            parser = made(self._tokenizer, model_config=self._model_config, **options)
            ids = self._tokenizer.encode(_TEXT, add_special_tokens=False)
            delta = parser.extract_reasoning_streaming("", _TEXT, _TEXT, [], ids, ids)
        except Exception:  # noqa: BLE001 - whatever parser it is, also an operator's own
            return None
        return parser if delta is not None and delta.reasoning else None
