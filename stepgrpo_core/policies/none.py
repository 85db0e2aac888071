"""`none`: count and report only. A model trained by Step-GRPO needs nothing else."""

from stepgrpo_core.policies.base import Boundary, ExitSettings, Question, Trial, Verdict

__all__ = ["NonePolicy"]


class NonePolicy:
    """Never asks and never exits."""

    def __init__(self, settings: ExitSettings) -> None:
        del settings  # every policy is built from the settings; this one has no use for them

    @property
    def question(self) -> Question | None:
        """No trial answers."""
        return None

    def decide(self, boundary: Boundary, trial: Trial) -> Verdict:
        """Go on, always."""
        del boundary, trial
        return Verdict()
