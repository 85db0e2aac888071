"""vLLM's reasoning parser: what the responses of chats call reasoning.

Most take whatever comes before the end for reasoning, whether it had a start or not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vllm.reasoning import ReasoningParser, ReasoningParserManager

__all__ = ["ResponseParser"]

_TEXT = "x"


class ResponseParser:
    """The parser of that name (``--reasoning-parser``), made anew for each look at it, as vLLM
    makes one per request; "": there is none."""

    def __init__(self, name: str, tokenizer: Any, model_config: Any) -> None:
        self.name = name
        self._tokenizer, self._model_config = tokenizer, model_config
        self._ids: list[int] = []

    def reads_unopened(
        self, options: Mapping[str, Any], prompt_ids: Sequence[int] | None = None
    ) -> bool:
        """Whether text without a start of thinking is reasoning to it, after the prompt for one
        that looks at it, as those of streams do.

        `options` are the request's for parsers. One that cannot be made, or asked, reads none.
        """
        try:
            parser = self._parser(options)
            if prompt_ids is not None and parser.is_reasoning_end(prompt_ids):
                return False
            ids = self._ids = self._ids or self._tokenizer.encode(_TEXT, add_special_tokens=False)
            delta = parser.extract_reasoning_streaming("", _TEXT, _TEXT, [], ids, ids)
        except Exception:  # noqa: BLE001 - whatever parser it is, also an operator's own
            return False
        return delta is not None and bool(delta.reasoning)

    def _parser(self, options: Mapping[str, Any]) -> ReasoningParser:
        made = ReasoningParserManager.get_reasoning_parser(self.name)
        return made(self._tokenizer, model_config=self._model_config, **options)
