"""`confidence`: exit when an induced answer is confident (DEER 2504.15895, Step-GRPO 2604.16890).

Departures: the trial is greedy (DEER samples it at temperature 1); a one-token trial has
confidence 0 (DEER divides by zero); on exit the answer is generated anew and the trial dropped.
"""

from stepgrpo_core.confidence import answer_confidence, ended_or_zero
from stepgrpo_core.policies.base import (
    Boundary,
    ExitReason,
    ExitSettings,
    Question,
    Trial,
    Verdict,
)

__all__ = ["ConfidencePolicy"]


class ConfidencePolicy:
    """Exits at the first boundary whose trial answer has a confidence above the threshold."""

    def __init__(self, settings: ExitSettings) -> None:
        self._settings = settings

    @property
    def question(self) -> Question | None:
        """The inducing prompt."""
        return Question(self._settings.inducing_prompt, self._settings.probe_max_tokens)

    def decide(self, boundary: Boundary, trial: Trial) -> Verdict:
        """Exit if confidence > threshold, strictly."""
        del boundary
        settings = self._settings
        confidence = answer_confidence(
            trial.logprobs, mean=settings.mean, skip_first=settings.skip_first
        )
        if settings.require_end:
            confidence = ended_or_zero(confidence, ended=trial.ended)
        confident = confidence > settings.threshold
        return Verdict(ExitReason.CONFIDENT if confident else None, confidence)
