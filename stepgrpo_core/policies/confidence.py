"""`confidence`: exit when an induced answer is confident (DEER 2504.15895, Step-GRPO 2604.16890).

At step markers. Defaults: threshold 0.95, strict; 20 greedy tokens; at most 10 probes.

Departures: the induced answer is greedy (DEER samples it at temperature 1); one of a single token
has confidence 0 (DEER divides by zero); on exit it is discarded and the answer generated anew.
"""

from stepgrpo_core.confidence import answer_confidence, ended_or_zero
from stepgrpo_core.policies.base import Boundary, BoundaryKind, ExitReason, Needs, Policy, Verdict
from stepgrpo_core.policies.probes import Answer, Induce, InducedAnswer
from stepgrpo_core.policies.settings import ExitSettings

__all__ = ["ConfidencePolicy", "confidence_of"]


class ConfidencePolicy(Policy):
    """Exits at the first boundary whose induced answer has a confidence above the threshold."""

    @property
    def needs(self) -> Needs:
        """Request an induced answer at step markers."""
        probe = Induce(self.settings.inducing_prompt, self.settings.probe_max_tokens)
        kinds = frozenset({BoundaryKind.MARKER, BoundaryKind.GAP})
        return Needs(kinds, self.settings.min_tokens, probe, self.settings.min_interval)

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Exit if confidence > threshold, strictly."""
        del boundary
        assert isinstance(answer, InducedAnswer)
        confidence = confidence_of(answer, self.settings)
        confident = confidence > self.settings.threshold
        return Verdict(ExitReason.CONFIDENT if confident else None, confidence)


def confidence_of(answer: InducedAnswer, settings: ExitSettings) -> float:
    """Return the confidence of an induced answer in [0, 1], computed as `settings` define."""
    confidence = answer_confidence(
        answer.logprobs, mean=settings.mean, skip_first=settings.skip_first
    )
    return ended_or_zero(confidence, ended=answer.ended) if settings.require_end else confidence
