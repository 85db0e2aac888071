"""Limits on the probes of a sequence, whatever its request sets.

A hostile prompt can have a marker in every line, and a request can set a probe at each; the
operator's limits bound the cost. A request above them is rejected; defaults above them are lowered.
Policies joined by + share them.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from service.params import BadParameter
from service.params.eligibility import probe_specs
from stepgrpo_core import ExitSettings, InvalidSetting
from stepgrpo_core.policies.entropy import least_checks, most_checks

__all__ = ["ProbeLimits", "clamp_to_limits"]


@dataclass(frozen=True, slots=True)
class ProbeLimits:
    """Limits of the operator on probes. Raises InvalidSetting."""

    probe_load: float = 0.25
    """Largest share of the running sequences that may be probes, above 0, up to 1. One may always
    run, none starts while requests queue, and requests with a seed are exempt."""
    probe_timeout: float = 30.0
    """Seconds after which a probe without a result has failed. Requests with a seed wait longer
    while requests queue, so that time does not decide their output."""
    verifier_timeout: float = 5.0
    """Seconds that the judge at verifier_url has for one judgment, retries included; at most
    600."""
    limit_probes: int = 32
    """Largest number of probes of a sequence, all its policies together; at least 1. Against
    hostile prompts use 16."""
    limit_interval: int = 0
    """Smallest number of reasoning tokens between two probes of a policy. Against hostile prompts
    use 64."""
    limit_share: float | None = None
    """Largest number of probe tokens of a sequence per reasoning token so far, from 0 to 1, each
    probe counted at its maximum length. None means no limit. Against hostile prompts use 0.15;
    short reasoning then loses its first probes."""

    def __post_init__(self) -> None:
        if not 0 < self.probe_load <= 1:  # also refuses NaN
            raise InvalidSetting("probe_load", self.probe_load, "use a number above 0, up to 1")
        if not 0 < self.probe_timeout < math.inf:
            raise InvalidSetting("probe_timeout", self.probe_timeout, "use a number of seconds")
        if self.limit_probes < 1:
            raise InvalidSetting("limit_probes", self.limit_probes, "use 1 or more")
        if self.limit_interval < 0:
            raise InvalidSetting("limit_interval", self.limit_interval, "use 0 or more")
        if self.limit_share is not None and not 0 <= self.limit_share <= 1:
            raise InvalidSetting("limit_share", self.limit_share, "use a number from 0 to 1")


def clamp_to_limits(
    settings: ExitSettings, limits: ProbeLimits, sources: Mapping[str, str] | None = None
) -> ExitSettings:
    """Return `settings` within the operator's `limits`; `sources` has the parameter of each field.

    Raises BadParameter for a value in `sources` that is beyond them, and for a policy that cannot
    act within them.
    """
    asking = sum(spec is not None for spec in probe_specs(settings).values())
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
        probe_specs(lowered)
    except InvalidSetting as error:
        remedy = f"{error.remedy}, but this server allows {limits.limit_probes} probes a sequence"
        policy = sources.get("policy", "exit_policy")
        raise BadParameter(policy, settings.policy, remedy) from error
    return lowered


def _shared(settings: ExitSettings, limit: int, asking: int) -> ExitSettings:
    """Divide `limit` probes among `asking` policies; entropy first gets enough for one exit."""
    each = limit // asking
    if "entropy" not in settings.policy.split("+"):
        return dataclasses.replace(settings, max_probes=min(settings.max_probes, max(each, 1)))
    checks = min(most_checks(settings), max(each, least_checks(settings)), limit)
    others = (limit - checks) // (asking - 1) if asking > 1 else limit
    probes = min(settings.max_probes, max(others, 1))
    return dataclasses.replace(settings, max_probes=probes, entropy_probes=checks)
