"""Chooses how a request runs: under exit controllers, or passed through vLLM and counted."""

import dataclasses
from collections.abc import Sequence

from vllm.sampling_params import RequestOutputKind

from service.engine.controlled import ControlledRequest
from service.engine.passthrough import PassthroughRequest
from service.engine.policy_resolver import PolicyResolver
from service.engine.request import EngineRequest, ServedModel
from service.engine.watchdog import guarded
from service.params.patterns import matcher_of
from service.records.reasons import Abstained
from service.records.sequence import SequenceRecord
from stepgrpo_core import ExitController, ExitSettings
from stepgrpo_core.families.prompts import PromptState

__all__ = ["Dispatcher"]


@dataclasses.dataclass(frozen=True, slots=True)
class Dispatcher:
    """Creates the run of a request."""

    served: ServedModel
    resolver: PolicyResolver
    stop_in_thinking: bool = False
    """Stop strings apply to the reasoning as well, as in vLLM."""

    def run(
        self, request: EngineRequest, settings: ExitSettings, records: Sequence[SequenceRecord]
    ) -> ControlledRequest | PassthroughRequest:
        """Return the run of a request, not started yet."""
        known = self.served.thinking is not None and request.has_ids
        controllers = [self._controller(request, settings) for _ in records] if known else []
        request = dataclasses.replace(
            request, stops_everywhere=not known or self._stops_everywhere(request)
        )
        stops = request.stops and not request.stops_everywhere

        def obstacle() -> Abstained | None:
            return self.resolver.obstacle(request)

        if settings.policy != "none" or stops:
            return ControlledRequest(self.served, request, records, controllers, obstacle=obstacle)
        return PassthroughRequest(self.served, request, records, controllers, obstacle=obstacle)

    def _stops_everywhere(self, request: EngineRequest) -> bool:
        """Return whether vLLM applies the stop strings: if the operator configured it, if the
        prompt has closed the thinking or is scored, and for cumulative outputs."""
        return (
            self.stop_in_thinking
            or request.opening.standing is PromptState.CLOSED
            or request.params.prompt_logprobs is not None
            or request.params.output_kind is RequestOutputKind.CUMULATIVE
        )

    def _controller(self, request: EngineRequest, settings: ExitSettings) -> ExitController:
        thinking = self.served.thinking
        assert thinking is not None
        if request.has_grammar:  # vLLM's grammars allow no white space after </think>
            thinking = thinking.closing_at_end()
        return ExitController(
            dataclasses.replace(
                settings, min_tokens=max(settings.min_tokens, request.params.min_tokens)
            ),
            thinking,
            max_tokens=request.params.max_tokens,
            thinking_open=request.opening.standing.open,
            thinking_implied=request.opening.implied,
            may_answer=request.opening.may_answer,
            matcher=matcher_of(settings),
            guard=guarded,
        )
