"""The candidates of a calibration: settings of a policy, the safest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepgrpo_core import ExitSettings
from stepgrpo_core.risk.thresholds import SETTINGS

__all__ = ["BOTH", "SWEEPS", "THRESHOLDS", "Sweep", "sweep_of"]

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
"""Thresholds of policy confidence."""
CHECKS = 32  # of policy entropy, as on a server

BOTH = "confidence+give_up"
SWEEPS: dict[str, tuple[float | str, ...]] = {
    "confidence": tuple(reversed(THRESHOLDS)),
    "consistency": ("mild", "low", "mid", "high", "max"),
    "entropy": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    "give_up": (16384, 8192, 4096, 2048, 1024, 512, 256),
    "margin": (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0),
    BOTH: tuple(reversed(THRESHOLDS)),
    "sufficiency": (100, 95, 90, 80, 70, 50),
}
"""Values of each policy's threshold, the safest first; of joined policies, of the first one's."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One policy at several thresholds."""

    policy: str
    thresholds: tuple[float | str, ...]
    """The safest first."""
    give_up_tokens: int | None = None
    """Tokens after which ``confidence+give_up`` gives up, the same at all thresholds."""

    @property
    def settings(self) -> list[ExitSettings]:
        """Return the settings of each candidate, in their order."""
        return [self.at(each) for each in self.thresholds]

    def at(self, threshold: float | str) -> ExitSettings:
        """Return the settings of one candidate."""
        checks = CHECKS if self.policy == "entropy" else None
        own: dict[str, Any] = {"give_up_tokens": self.give_up_tokens, self.name: threshold}
        return ExitSettings(policy=self.policy, entropy_probes=checks, **own)

    @property
    def name(self) -> str:
        """Return the setting that is swept."""
        return SETTINGS[self.policy.partition("+")[0]][0]


def sweep_of(policy: str, confidences: Sequence[float], give_up_tokens: int | None = None) -> Sweep:
    """Return the sweep of a policy; `confidences` are the thresholds of policy confidence."""
    confident = policy.startswith("confidence")
    own = sorted(set(confidences), reverse=True) if confident else SWEEPS[policy]
    return Sweep(policy, tuple(own), give_up_tokens if policy == BOTH else None)
