"""Totals of rollouts over a run and all its ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

from accelerate.utils import gather_object

from training.rollouts.batch import Rollout

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """Totals over the run and all ranks, stored in checkpoints."""

    rollouts: int = 0
    completion_tokens: int = 0
    probe_tokens: int = 0
    discarded_tokens: int = 0

    def add(self, rollouts: Sequence[Rollout]) -> int:
        """Add the batches of all ranks; return how many completions ended before the limit.

        This is a collective call: every rank must make it.
        """
        local = (
            len(rollouts),
            sum(len(each.ids) for each in rollouts),
            sum(each.probe_tokens for each in rollouts),
            sum(each.discarded_tokens for each in rollouts),
            sum(each.ended for each in rollouts),
        )
        ended = 0
        for rank in gather_object([local]):
            self.rollouts += rank[0]
            self.completion_tokens += rank[1]
            self.probe_tokens += rank[2]
            self.discarded_tokens += rank[3]
            ended += rank[4]
        return ended
