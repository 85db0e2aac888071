"""`none`: count and report only. A model trained by Step-GRPO needs nothing else.

It also leaves a completion alone that ends inside its thinking (`close_on_eos`).
"""

from stepgrpo_core.policies.base import Boundary, Needs, Verdict
from stepgrpo_core.policies.probes import Answer
from stepgrpo_core.policies.settings import ExitSettings

__all__ = ["NonePolicy"]


class NonePolicy:
    """Acts nowhere."""

    def __init__(self, settings: ExitSettings) -> None:
        del settings  # every policy is built from the settings; this one has no use for them

    @property
    def needs(self) -> Needs:
        """No place."""
        return Needs(frozenset())

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Go on, always."""
        del boundary, answer
        return Verdict()
