"""Decide whether a policy can act on a request, or must abstain and why.

Some reasons concern the whole policy, others only its parts that probe: of ``confidence+budget``
the budget remains.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.records.reasons import Abstained
from stepgrpo_core import ExitSettings, build_policy
from stepgrpo_core.policies import Induce, Judge, ProbeSpec
from stepgrpo_core.risk.thresholds import SETTINGS

__all__ = ["Facts", "eligible", "offers_tools", "probe_specs"]


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a request and its server that decide whether a policy can act."""

    thinks: bool = True
    closes: bool = True
    has_ids: bool = True
    cumulative: bool = False
    continues_thought: bool = False
    ignore_eos: bool = False
    prompt_logprobs: bool = False
    grammar: bool = False
    prefix_caching: bool = True
    tools: bool = False
    """The request offers tools and names no policy, and the server has no ``--exit-with-tools``."""
    uncalibrated: bool = False
    """The server's thresholds were calibrated for another model or sampling, and the request sets
    none itself."""


def eligible(specs: Mapping[str, ProbeSpec | None], facts: Facts) -> tuple[str, Abstained | None]:
    """Return the part of the policy that acts, and why not all of it does.

    `specs` has the probe of each joined policy by the policy's name, None if it makes none.
    """
    if list(specs) == ["none"]:
        return "none", None
    whole = (
        (not facts.thinks, Abstained.NO_THINKING_TOKENS),
        (not facts.closes, Abstained.COUNTS_ONLY),
        (not facts.has_ids, Abstained.NO_TOKEN_IDS),
        (facts.cumulative, Abstained.CUMULATIVE_OUTPUT),
        (facts.continues_thought, Abstained.CONTINUED_THINKING),
        (facts.ignore_eos, Abstained.IGNORE_EOS),
        (facts.prompt_logprobs, Abstained.PROMPT_LOGPROBS),
        (facts.grammar, Abstained.GRAMMAR),
    )
    for applies, reason in whole:
        if applies:
            return "none", reason
    if not facts.prefix_caching:
        left = [name for name, spec in specs.items() if not _costs_its_prefix(spec)]
        if len(left) < len(specs):
            return "+".join(left) or "none", Abstained.NO_PREFIX_CACHING
    if facts.tools:
        left = [name for name, asked in specs.items() if not isinstance(asked, Induce | Judge)]
        if len(left) < len(specs):
            return "+".join(left) or "none", Abstained.TOOLS
    if facts.uncalibrated:
        left = [name for name in specs if name not in SETTINGS]
        if len(left) < len(specs):
            return "+".join(left) or "none", Abstained.UNCALIBRATED
    return "+".join(specs), None


def _costs_its_prefix(spec: ProbeSpec | None) -> bool:
    elsewhere = isinstance(spec, Judge) and spec.url is not None
    return spec is not None and not elsewhere


def probe_specs(settings: ExitSettings) -> dict[str, ProbeSpec | None]:
    """Return the probe of each policy in `settings` by its name; None if it makes none."""
    policies = build_policy(settings, re.compile("(?!)"))  # the pattern is never matched
    names = settings.policy.split("+")
    return {name: each.needs.probe for name, each in zip(names, policies, strict=True)}


def offers_tools(body: Mapping[str, Any]) -> bool:
    """Return True if a request body offers tools that the answer may call."""
    choice = body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, Mapping) else choice  # Anthropic's is a mapping
    return bool(body.get("tools")) and kind != "none"
