"""What probes may cost a sequence, whatever its request asks for.

Text can be written to hold a marker in every line, and a request can ask for a probe at each. The
operator's ceilings bound that. A request that asks for more is refused and told so; what it left to
the server's defaults is lowered. Policies joined by + share them.
"""

import dataclasses
from collections.abc import Mapping

from service.controls import BadParameter
from service.eligibility import questions_of
from service.load import ProbeLimits
from stepgrpo_core import ExitSettings, InvalidSetting
from stepgrpo_core.policies.entropy import least_checks, most_checks

__all__ = ["held"]


def held(
    settings: ExitSettings, limits: ProbeLimits, sources: Mapping[str, str] | None = None
) -> ExitSettings:
    """`settings` under the operator's `limits`; `sources` names the parameter that set a field.

    Raises BadParameter for a value that a request asked for and that is beyond them, and for a
    policy that cannot act within them.
    """
    asking = sum(question is not None for question in questions_of(settings).values())
    if not asking:
        return settings
    sources = sources or {}
    if settings.max_probes > limits.limit_probes and "max_probes" in sources:
        remedy = f"this server allows at most {limits.limit_probes} a sequence"
        raise BadParameter(sources["max_probes"], settings.max_probes, remedy)
    if settings.min_interval < limits.limit_interval and "min_interval" in sources:
        remedy = f"this server wants probes at least {limits.limit_interval} tokens apart"
        raise BadParameter(sources["min_interval"], settings.min_interval, remedy)
    share = settings.probe_share
    if limits.limit_share is not None:
        share = min(limits.limit_share / asking, 1.0 if share is None else share)
    lowered = dataclasses.replace(
        _shared(settings, limits.limit_probes, asking),
        min_interval=max(settings.min_interval, limits.limit_interval),
        probe_share=share,
    )
    try:
        questions_of(lowered)
    except InvalidSetting as error:
        remedy = f"{error.remedy}, but this server allows {limits.limit_probes} probes a sequence"
        policy = sources.get("policy", "exit_policy")
        raise BadParameter(policy, settings.policy, remedy) from error
    return lowered


def _shared(settings: ExitSettings, limit: int, asking: int) -> ExitSettings:
    """`asking` policies share `limit` probes; `entropy`, which needs so many for its first exit,
    has those before the others."""
    each = limit // asking
    if "entropy" not in settings.policy.split("+"):
        return dataclasses.replace(settings, max_probes=min(settings.max_probes, max(each, 1)))
    checks = min(most_checks(settings), max(each, least_checks(settings)), limit)
    others = (limit - checks) // (asking - 1) if asking > 1 else limit
    probes = min(settings.max_probes, max(others, 1))
    return dataclasses.replace(settings, max_probes=probes, entropy_probes=checks)
