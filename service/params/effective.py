"""Overlay a request on the server's defaults: one effective policy, with its sources."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from service.params.effort import EFFORT, effort_tokens
from service.params.patterns import matcher_of
from service.params.suggestions import misplaced_parameter
from service.params.table import CONTAINER, PARAMETERS
from service.records.reasons import Abstained
from service.records.requested import BadParameter, Requested, ThinkingRequest
from stepgrpo_core import ExitSettings, InvalidSetting, build_policy
from stepgrpo_core.policies.entropy import least_checks, most_checks

__all__ = ["Effective", "effective_settings", "enough_checks"]

NOTHING = ThinkingRequest()
CHECKS = 32
"""Checks of policy entropy if none are set: the default of `limit_probes`."""

_DECISIVE: Mapping[str, tuple[str, ...]] = {
    "budget": ("budget_tokens", "max_steps"),
    "confidence": ("threshold",),
    "consistency": ("consistency",),
    "entropy": ("entropy_variance",),
    "give_up": ("give_up_tokens", "give_up_level"),
    "margin": ("margin_threshold",),
    "pattern": ("pattern",),
    "repetition": ("repetition_chunks",),
    "sufficiency": ("sufficiency_score",),
    "verifier": ("verifier_threshold",),
}
"""Settings that decide when each policy exits."""


@dataclass(frozen=True, slots=True)
class Effective:
    """Effective settings of one request."""

    settings: ExitSettings
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Parameter that set each field that is not the server's default."""
    demand: Requested | None = None
    """Explicit bound, which must be rejected if no policy can enforce it."""
    abstained: Abstained | None = None
    """Reason for which not all of the policy acts."""
    guarantee: Mapping[str, Any] | None = None
    """The promise of calibrated thresholds, where it holds."""

    def abstaining(self, policy: str, reason: Abstained) -> "Effective":
        """Return the settings with the policy that is left."""
        sources = {} if policy == "none" else self.sources
        settings = dataclasses.replace(self.settings, policy=policy)
        return Effective(settings, sources, self.demand, reason)

    def as_block(self) -> dict[str, Any]:
        """Return the policy's decisive settings, and ``from``: the parameters that set them.

        With a guarantee also its risk, epsilon, and delta.
        """
        names = [
            name for part in self.settings.policy.split("+") for name in _DECISIVE.get(part, ())
        ]
        values = {name: getattr(self.settings, name) for name in names}
        shown = {name: value for name, value in values.items() if value is not None}
        if self.settings.shadow and self.settings.policy != "none":
            shown["shadow"] = True
        if self.guarantee is not None:
            shown["guarantee"] = dict(self.guarantee)
        sources = {name: self.sources[name] for name in ("policy", *shown) if name in self.sources}
        return shown | ({"from": sources} if sources else {})


def effective_settings(
    xargs: Mapping[str, Any] | None,
    defaults: ExitSettings,
    asked: ThinkingRequest = NOTHING,
    *,
    limit: int | None = None,
    closing: int = 0,
    effort: Mapping[str, int | float | None] = EFFORT,
) -> Effective:
    """Return the server's `defaults` with a request's parameters, ``vllm_xargs`` first.

    `limit` is the request's token limit, `closing` the number of tokens that close its thinking.
    Raises BadParameter for an unknown ``exit_`` parameter, an invalid value, and a bound that
    another parameter forbids. Other arguments in ``vllm_xargs`` belong to other plug-ins and are
    ignored.
    """
    changes, sources = _ours(xargs)
    _bind_entropy(changes, sources, defaults)
    if changes:
        _built(defaults, changes, sources)  # raises for what is invalid even without a bound
    bound = _bound(changes, asked, effort, limit)
    demand = _demand(bound, changes, asked)
    if demand is None and (changes.get("policy") == "none" or changes.get("shadow")):
        bound = None  # implied by an effort or a switch: an explicit parameter overrides it
    if demand is not None:
        _check(demand, changes)
    if bound is not None:
        changes["budget_tokens"], sources["budget_tokens"] = bound.value, bound.parameter
    binding = demand or bound
    if binding is not None and binding.value is not None:
        _bind(changes, sources, defaults, binding)
    settings = _built(defaults, changes, sources)
    return Effective(_with_room(settings, limit, closing), sources, demand)


def _ours(xargs: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, str]]:
    if refusal := misplaced_parameter({CONTAINER: xargs or {}}):
        raise refusal
    changes: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, value in (xargs or {}).items():
        if name in PARAMETERS:
            field, read = PARAMETERS[name]
            changes[field] = _read(name, value, read)
            sources[field] = f"{CONTAINER}.{name}"
    return changes, sources


def _bind_entropy(changes: dict[str, Any], sources: dict[str, str], defaults: ExitSettings) -> None:
    """Apply a requested number of probes to policy entropy, or else give it enough for an exit."""
    if "entropy" not in changes.get("policy", defaults.policy).split("+"):
        return
    if "max_probes" in changes:
        changes["entropy_probes"] = changes["max_probes"]
        sources["entropy_probes"] = sources["max_probes"]
    elif most_checks(defaults) < least_checks(defaults):
        changes["entropy_probes"] = enough_checks(defaults)


def enough_checks(settings: ExitSettings) -> int:
    """Return the number of checks of policy entropy where none is set."""
    return max(CHECKS, least_checks(settings))


def _bound(
    changes: Mapping[str, Any],
    asked: ThinkingRequest,
    effort: Mapping[str, int | float | None],
    limit: int | None,
) -> Requested | None:
    """Return the reasoning tokens that the request allows; None if it sets no bound."""
    if "budget_tokens" in changes:
        return Requested(changes["budget_tokens"], f"{CONTAINER}.exit_budget_tokens")
    if asked.off is not None:
        return Requested(0, asked.off.parameter, asked.off.written)
    if asked.budget is not None:
        return asked.budget
    if asked.effort is None or limit is None:
        return None
    tokens = effort_tokens(effort[asked.effort.value], limit)
    return Requested(tokens, asked.effort.parameter, asked.effort.written)


def _demand(
    bound: Requested | None, changes: Mapping[str, Any], asked: ThinkingRequest
) -> Requested | None:
    """Return the bound that must be enforced.

    The bound of an effort need not be, nor one that the chat template already enforces.
    """
    if bound is not None and bound.value is not None:
        explicit = _is_ours(bound) or bound is asked.budget
        if explicit or (asked.off and not asked.already_off):
            return bound
    if "max_steps" in changes:
        return Requested(changes["max_steps"], f"{CONTAINER}.exit_max_steps")
    return None


def _check(demand: Requested, changes: Mapping[str, Any]) -> None:
    """Raise BadParameter for a bound that nothing would enforce, except ours in shadow mode."""
    if changes.get("policy") == "none":
        other = Requested("none", f"{CONTAINER}.exit_policy")
    elif changes.get("shadow") and not _is_ours(demand):
        other = Requested(True, f"{CONTAINER}.exit_shadow")
    else:
        return
    remedy = f"it contradicts {other}, under which nothing enforces it; leave one of them out"
    raise demand.refusal(remedy)


def _is_ours(requested: Requested) -> bool:
    return requested.parameter.startswith(f"{CONTAINER}.")


def _bind(
    changes: dict[str, Any], sources: dict[str, str], defaults: ExitSettings, bound: Requested
) -> None:
    """Add `budget` to the policy, or replace the policy by it, so that the bound is enforced."""
    names = changes.get("policy", defaults.policy).split("+")
    if "shadow" not in changes and defaults.shadow:
        # The server is in shadow mode, but a bound that a request sets must be enforced.
        names, changes["shadow"] = ["budget"], False
    elif names == ["none"] or bound.value == 0:
        names = ["budget"]
    elif "budget" not in names:
        names.append("budget")
    if "+".join(names) != changes.get("policy", defaults.policy):
        changes["policy"], sources["policy"] = "+".join(names), bound.parameter


def _built(
    defaults: ExitSettings, changes: Mapping[str, Any], sources: Mapping[str, str]
) -> ExitSettings:
    try:
        settings = dataclasses.replace(defaults, **changes)
        if changes:
            build_policy(settings, matcher_of(settings))
    except InvalidSetting as error:
        raise _as_sent(error, changes, sources) from error
    if "pattern" in changes and "pattern" not in settings.policy.split("+"):
        joined = "pattern" if settings.policy == "none" else f"{settings.policy}+pattern"
        remedy = f"only policy pattern reads it: add exit_policy={joined!r}"
        raise BadParameter(f"{CONTAINER}.exit_pattern", settings.pattern, remedy)
    return settings


def _as_sent(
    error: InvalidSetting, changes: Mapping[str, Any], sources: Mapping[str, str]
) -> BadParameter:
    """Return the error under the name of a parameter that the request has."""
    if error.name in sources:
        return BadParameter(sources[error.name], error.value, error.remedy)
    name = "policy" if "policy" in sources else next(iter(sources))
    remedy = f"with exit_{error.name}={error.value!r}: {error.remedy}"
    return BadParameter(sources[name], changes[name], remedy)


def _with_room(settings: ExitSettings, limit: int | None, closing: int) -> ExitSettings:
    """Return settings whose budget leaves room for an answer under `limit`."""
    if limit is None or "budget" not in settings.policy.split("+"):
        return settings
    after = limit - closing
    reserve = min(settings.answer_reserve, max((after - 1) // 2, 1))
    budget = settings.budget_tokens
    if budget is not None and settings.budget_leaves_answer:
        budget = min(
            budget, max((after - reserve) * 10 // 11, 0)
        )  # the budget may be exceeded by a tenth
    return dataclasses.replace(settings, answer_reserve=reserve, budget_tokens=budget)


def _read(name: str, value: Any, read: Callable[[Any], Any]) -> Any:
    try:
        return read(value)
    except (ValueError, TypeError) as error:
        raise BadParameter(f"{CONTAINER}.{name}", value, str(error)) from error
