"""`margin`: exit when ``</think>`` is close to the most likely next token (ThinkBrake 2510.00546).

At sentence ends: log p(most likely next token) - log p(``</think>``) <= tau. Default: tau 1.0; the
paper has 0.25 for tool use.

Departures: a probe of one token reads the distribution, so the limits on probes apply; the authors
read it from the stream. A ``</think>`` outside the 20 most likely tokens is never an exit. The
definition of a sentence end is ours (`BoundaryKind.SENTENCE`).
"""

import math

from stepgrpo_core.policies.base import Boundary, BoundaryKind, ExitReason, Needs, Policy, Verdict
from stepgrpo_core.policies.probes import Answer, Distribution, NextToken

__all__ = ["MarginPolicy"]

TOP = 20  # vLLM's default limit


class MarginPolicy(Policy):
    """Exits at the first sentence end with a margin of at most `margin_threshold`."""

    @property
    def needs(self) -> Needs:
        """Request the next token's distribution at sentence ends."""
        kinds = frozenset({BoundaryKind.SENTENCE})
        return Needs(
            kinds, self.settings.min_tokens, NextToken("", TOP), self.settings.min_interval
        )

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Exit if the margin is small; the confidence is p(``</think>``) / p(most likely)."""
        del boundary
        assert isinstance(answer, Distribution)
        if answer.end is None or not answer.logprobs:
            return Verdict(None, 0.0)
        margin = answer.logprobs[0] - answer.end
        close = margin <= self.settings.margin_threshold  # False for NaN
        confidence = math.exp(-max(margin, 0.0)) if not math.isnan(margin) else 0.0
        return Verdict(ExitReason.MARGIN if close else None, confidence)
