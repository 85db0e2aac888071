"""`none`: only count and report. A model trained by Step-GRPO needs no other policy.

A completion that ends inside its thinking is not closed, whatever `close_on_eos` says.
"""

from stepgrpo_core.policies.base import Boundary, Needs, Verdict
from stepgrpo_core.policies.probes import Answer
from stepgrpo_core.policies.settings import ExitSettings

__all__ = ["NonePolicy"]


class NonePolicy:
    """Never exits."""

    def __init__(self, settings: ExitSettings) -> None:
        del settings  # every policy is built from settings; this one needs none

    @property
    def needs(self) -> Needs:
        """Request no boundary."""
        return Needs(frozenset())

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Never exit."""
        del boundary, answer
        return Verdict()
