"""Determines how a completion begins: whether it is thinking from its first token on."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind

from service.engine.request import EngineRequest, Opening
from service.engine.response_parser import ResponseParser
from stepgrpo_core import ThinkingFormat
from stepgrpo_core.families.prompts import PromptState, ends_with_header, prompt_state

__all__ = ["Openings", "prepend_end"]


@dataclass(frozen=True, slots=True)
class Openings:
    """Determines the opening of requests from their prompts and vLLM's reasoning parser."""

    tokenizer: Any
    thinking: ThinkingFormat | None
    """None: the model does not think."""
    special: frozenset[int]
    """Ids of special tokens."""
    turn: Sequence[int]
    """Ids that begin an assistant's message whose thinking has no start; empty: none does."""
    parser: ResponseParser

    def resolve(self, request: EngineRequest) -> EngineRequest:
        """Return the request with its opening and the stop tokens of its answer."""
        thinking = self.thinking
        if thinking is None or not request.has_ids:
            return request
        between = self.special - {thinking.start_id, thinking.end_id}
        stop_ids = frozenset(request.params.stop_token_ids or ()) - between
        return dataclasses.replace(
            request, opening=self._opening(request, thinking), stop_ids=stop_ids
        )

    def _opening(self, request: EngineRequest, thinking: ThinkingFormat) -> Opening:
        standing = prompt_state(
            self.tokenizer, thinking, request.prompt_ids, self.special, self.turn
        )
        if standing is PromptState.BEFORE:
            return self._before(request)
        if standing is PromptState.CLOSED and self._reads_whole(request):
            ids = [*thinking.before_end, thinking.end_id]
            end = thinking.end_text or self.tokenizer.decode(ids, skip_special_tokens=False)
            return Opening(standing, end=end)
        return Opening(standing)

    def _before(self, request: EngineRequest) -> Opening:
        """Return the opening of a prompt that ends before any thinking.

        For a parsed response, the parser decides. Otherwise the thinking is implied if a turn
        begins and the parser of chats would read it so; the text may still be an answer.
        """
        options = request.options.get("reasoning_parser_kwargs")
        if options is None and self.parser.name and "reasoning_ended" in request.options:
            options = {}  # a batch of chats, which vLLM parses as well
        if options is not None:
            streams = request.params.output_kind is RequestOutputKind.DELTA
            prompt = request.prompt_ids if streams else None
            return Opening(implied=self.parser.reads_unopened(options, prompt))
        turns = bool(self.turn) and ends_with_header(request.prompt_ids, self.turn)
        known = not self.parser.name or (turns and self.parser.reads_unopened({}))
        return Opening(implied=turns and known, may_answer=True)

    def _reads_whole(self, request: EngineRequest) -> bool:
        """Return whether a parser that does not see the prompt takes the response for reasoning,
        as it does for whole responses."""
        options = request.options.get("reasoning_parser_kwargs")
        whole = request.params.output_kind is RequestOutputKind.FINAL_ONLY
        return whole and options is not None and self.parser.reads_unopened(options)


def prepend_end(output: RequestOutput, end: str) -> RequestOutput:
    """Return the output with `end` before its texts ("" changes nothing).

    A whole output whose prompt has closed the thinking needs it: the parser, which does not see
    the prompt, then takes the texts for answers, as it does in streams.
    """
    if end:
        for completion in output.outputs:
            completion.text = end + completion.text
    return output
