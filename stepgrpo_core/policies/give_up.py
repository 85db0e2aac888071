"""`give_up`: exit when the confidence stays low for long (Conformal Thinking 2602.03814).

Models think longest about questions that they do not solve. At step markers an answer is induced,
as by `confidence`, and the thinking ends if the confidence is at most a threshold that rises with
the reasoning tokens t,

    level / (1 + exp(-8 (t / T - 1)))

with `give_up_level` and T = `give_up_tokens`, where it is half of the level. Without
`give_up_tokens` the policy never exits: calibrate it.

Departures: the authors smooth the signal and choose the slope too (theirs is the 8 / T); the answer
is whatever the model says after the close, and one that is right is no loss, where their first risk
counts every exit of a question that the full run solves. They calibrate by a bound on the mean,
ours is Learn then Test, and both thresholds of ``confidence+give_up`` have one risk.
"""

import math

from stepgrpo_core.policies.base import Boundary, BoundaryKind, ExitReason, Needs, Verdict
from stepgrpo_core.policies.confidence import confidence_of
from stepgrpo_core.policies.probes import Answer, Induce, InducedAnswer
from stepgrpo_core.policies.settings import ExitSettings

__all__ = ["GiveUpPolicy"]

STEEPNESS = 8.0


class GiveUpPolicy:
    """Exits at the first boundary whose confidence is at most the rising threshold."""

    def __init__(self, settings: ExitSettings) -> None:
        self._settings = settings

    @property
    def needs(self) -> Needs:
        """Request an induced answer at step markers; nothing without `give_up_tokens`."""
        settings = self._settings
        if settings.give_up_tokens is None:
            return Needs(frozenset())
        probe = Induce(settings.inducing_prompt, settings.probe_max_tokens)
        kinds = frozenset({BoundaryKind.MARKER, BoundaryKind.GAP})
        return Needs(kinds, settings.min_tokens, probe, settings.min_interval)

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Exit if the confidence is at most the threshold at the boundary's tokens."""
        assert isinstance(answer, InducedAnswer)
        confidence = confidence_of(answer, self._settings)
        hopeless = confidence <= self._threshold(boundary.reasoning_tokens)
        return Verdict(ExitReason.GAVE_UP if hopeless else None, confidence)

    def _threshold(self, tokens: int) -> float:
        """Return the threshold after so many reasoning tokens."""
        assert self._settings.give_up_tokens is not None
        exponent = STEEPNESS * (1 - tokens / self._settings.give_up_tokens)  # at most 8
        return self._settings.give_up_level / (1 + math.exp(exponent))
