"""Exit policies: one file each.

How to add one: write a class built from `ExitSettings` with `question` and `decide` (see
`ExitPolicy`), state its source, defaults and departures at the top of its file, and enter it in
`POLICIES`. The server, the trainer and the documentation take it from there.
"""

from collections.abc import Callable

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.policies.base import (
    Boundary,
    ExitPolicy,
    ExitReason,
    ExitSettings,
    Question,
    Trial,
    Verdict,
)
from stepgrpo_core.policies.confidence import ConfidencePolicy
from stepgrpo_core.policies.none import NonePolicy

__all__ = [
    "POLICIES",
    "Boundary",
    "ExitPolicy",
    "ExitReason",
    "ExitSettings",
    "Question",
    "Trial",
    "Verdict",
    "build_policy",
]

POLICIES: dict[str, Callable[[ExitSettings], ExitPolicy]] = {
    "confidence": ConfidencePolicy,
    "none": NonePolicy,
}
"""Exit policies by the name that requests and flags use."""


def build_policy(settings: ExitSettings) -> ExitPolicy:
    """A fresh policy for one sequence; raises InvalidSetting for an unknown name."""
    if settings.policy not in POLICIES:
        raise InvalidSetting("policy", settings.policy, f"use one of {', '.join(POLICIES)}")
    return POLICIES[settings.policy](settings)
