"""`none`: only count and report. A model trained by Step-GRPO needs no other policy.

A completion that ends inside its thinking is not closed, whatever `close_on_eos` says.
"""

from stepgrpo_core.policies.base import Boundary, Needs, Policy, Verdict
from stepgrpo_core.policies.probes import Answer

__all__ = ["NonePolicy"]


class NonePolicy(Policy):
    """Never exits."""

    @property
    def needs(self) -> Needs:
        """Request no boundary."""
        return Needs(frozenset())

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Never exit."""
        del boundary, answer
        return Verdict()
