"""Resolves the effective exit settings of a request."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vllm.sampling_params import RequestOutputKind

from service.engine.request import EngineRequest, ServedModel
from service.params import Effective, ThinkingRequest, effective_settings
from service.params.eligibility import Facts, eligible, probe_specs
from service.params.limits import ProbeLimits, clamp_to_limits
from service.params.table import PARAMETERS
from service.records.reasons import OBSTACLES, Abstained
from stepgrpo_core import ExitSettings
from stepgrpo_core.families.prompts import PromptState
from stepgrpo_core.risk import Thresholds

__all__ = ["Calibrated", "PolicyResolver"]

_CONSTRAINTS = ("logit_bias", "allowed_token_ids", "bad_words", "structured_outputs")
"""Parameters that restrict the tokens; no calibration has any."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The server's thresholds and the model that they are for."""

    thresholds: Thresholds
    adapter: str | None
    """The calibrated adapter; None for the model itself."""

    def overridden(self, request: EngineRequest) -> bool:
        """Return whether a request sets the policy or what decides its exits itself."""
        named = request.params.extra_args or {}
        fields = {PARAMETERS[name][0] for name in named if name in PARAMETERS}
        return not fields.isdisjoint(self.thresholds.settings)

    def covers(self, request: EngineRequest) -> bool:
        """Return whether a request is to the calibrated model, with the calibrated sampling."""
        params = request.params
        free = not any(getattr(params, name) for name in _CONSTRAINTS)
        return request.adapter == self.adapter and free and self.thresholds.same_sampling(params)


@dataclass(frozen=True, slots=True)
class PolicyResolver:
    """Resolves settings from the server's defaults, limits and capabilities."""

    served: ServedModel
    defaults: ExitSettings
    limits: ProbeLimits
    effort: Mapping[str, int | float | None]
    max_model_len: int
    prefix_caching: bool
    grammars_wait: bool
    """Grammars start after the thinking, whose end a reasoning parser reports to vLLM."""
    is_off: Callable[[EngineRequest, str], bool]
    """Returns whether the quality guard has switched a policy off."""
    with_tools: bool = False
    """Policies with probes act even if tools are offered."""
    calibrated: Calibrated | None = None
    """Thresholds with a guarantee."""

    def effective(
        self, request: EngineRequest, asked: ThinkingRequest, *, tools: bool
    ) -> Effective:
        """Return the settings of a request: its parameters over the defaults.

        Raises BadParameter, also for a token bound that no policy could enforce.
        """
        limit = request.params.max_tokens or self.max_model_len
        effective = self.wanted(request.params.extra_args, asked, limit)
        policy, reason = eligible(probe_specs(effective.settings), self._facts(request, tools))
        if self.is_off(request, policy):
            reason = Abstained.SWITCHED_OFF
            bound = effective.demand is not None and "budget" in policy.split("+")
            policy = "budget" if bound else "none"
        if reason is None and self.served.thinking is None:  # policy none cannot count either
            return effective.abstaining(policy, Abstained.NO_THINKING_TOKENS)
        if reason is None:
            return self._with_guarantee(request, effective)
        demand = effective.demand
        if demand is not None and "budget" not in policy.split("+"):
            remedy = f"nothing can hold it: {OBSTACLES[reason]}"
            raise demand.refusal(remedy)
        return effective.abstaining(policy, reason)

    def _with_guarantee(self, request: EngineRequest, effective: Effective) -> Effective:
        """Return the settings with the promise of the thresholds, where nothing changes them."""
        found = self.calibrated
        if found is None or not found.covers(request):
            return effective
        if not effective.sources.keys().isdisjoint(found.thresholds.settings):
            return effective
        return dataclasses.replace(effective, guarantee=found.thresholds.promise)

    def wanted(
        self, xargs: Mapping[str, Any] | None, asked: ThinkingRequest, limit: int | None = None
    ) -> Effective:
        """Return the parameters over the defaults, within the operator's limits, for any prompt.

        `limit` is the request's token limit. Raises BadParameter.
        """
        thinking = self.served.thinking
        effective = effective_settings(
            xargs,
            self.defaults,
            asked,
            limit=limit,
            closing=len(thinking.closing_ids) if thinking else 0,
            effort=self.effort,
        )
        settings = clamp_to_limits(effective.settings, self.limits, effective.sources)
        return dataclasses.replace(effective, settings=settings)

    def obstacle(self, request: EngineRequest) -> Abstained | None:
        """Return the reason why the thinking of a request cannot be closed; None if it can."""
        _, reason = eligible({"budget": None}, self._facts(request, tools=False))
        return reason

    def _facts(self, request: EngineRequest, tools: bool) -> Facts:
        params, thinking = request.params, self.served.thinking
        named = "exit_policy" in (params.extra_args or {})
        return Facts(
            thinks=thinking is not None,
            closes=thinking is not None and bool(thinking.closing_ids),
            has_ids=request.has_ids,
            cumulative=params.output_kind is RequestOutputKind.CUMULATIVE,
            continues_thought=request.opening.standing is PromptState.INSIDE,
            ignore_eos=bool(params.ignore_eos),
            prompt_logprobs=params.prompt_logprobs is not None,
            grammar=request.has_grammar and not self._grammar_waits(request),
            prefix_caching=self.prefix_caching,
            tools=tools and not named and not self.with_tools,
            uncalibrated=self._uncalibrated(request),
        )

    def _uncalibrated(self, request: EngineRequest) -> bool:
        found = self.calibrated
        return found is not None and not found.overridden(request) and not found.covers(request)

    def _grammar_waits(self, request: EngineRequest) -> bool:
        """Return whether the grammar starts after the thinking; else there is no thinking."""
        return self.grammars_wait and request.options.get("reasoning_ended") is not True
