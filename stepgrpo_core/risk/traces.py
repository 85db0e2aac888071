"""`Trace`, a full run with what the policy's signal said at every boundary, and its replay.

A trace makes it possible to replay an exit policy at any threshold without generating again: the
policy exits at the first boundary whose signal is above the threshold, and never otherwise.
"""

from dataclasses import dataclass
from typing import Literal

from stepgrpo_core.errors import InvalidCalibration

__all__ = ["LOSSES", "Exit", "Loss", "Reading", "Run", "Trace", "replay"]

Loss = Literal["lost", "changed"]
"""``lost``: the full run is right and the exited one is wrong; it needs gold answers.
``changed``: the exited run gives another answer than the full run; it needs none."""
LOSSES: tuple[Loss, ...] = ("lost", "changed")


@dataclass(frozen=True, slots=True)
class Reading:
    """One boundary of a trace."""

    tokens: int
    """Thinking tokens up to this boundary."""
    signal: float
    """The policy's signal; a higher one means that the answer is surer."""
    changed: bool
    """The answer here differs from that of the full run."""
    right: bool | None = None
    """The answer here is right; None where no gold answer is known."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One full run. Raises InvalidCalibration for readings that are out of order."""

    question: str
    """Runs of one question count as one cluster."""
    tokens: int
    """Thinking tokens of the full run."""
    readings: tuple[Reading, ...]
    right: bool | None = None
    """The full run's answer is right; None where no gold answer is known."""

    def __post_init__(self) -> None:
        ends = [each.tokens for each in self.readings]
        if ends != sorted(ends) or (ends and not 0 <= ends[0] <= ends[-1] <= self.tokens):
            raise InvalidCalibration(
                f"question {self.question}: readings at {ends} of {self.tokens} tokens; give "
                "boundaries in their order, none behind the end of the thinking"
            )


@dataclass(frozen=True, slots=True)
class Exit:
    """A run as a policy delivers it."""

    tokens: int
    """Thinking tokens that were generated."""
    changed: bool = False
    lost: bool | None = False
    """The full run is right and this one is wrong; None where no gold answer is known."""
    gained: bool | None = False
    """The full run is wrong and this one is right; None where no gold answer is known."""
    probe_tokens: int = 0
    """Tokens of probes up to the exit."""


@dataclass(frozen=True, slots=True)
class Run:
    """One full run, and what every candidate makes of it."""

    question: str
    """Runs of one question count as one cluster."""
    tokens: int
    """Thinking tokens of the full run."""
    exits: tuple[Exit, ...]
    """One for each candidate, in their order."""


def replay(trace: Trace, threshold: float) -> Exit:
    """Return what the policy does on `trace` at `threshold`."""
    for each in trace.readings:
        if each.signal > threshold:
            if trace.right is None or each.right is None:
                return Exit(each.tokens, each.changed, None, None)
            lost = trace.right and not each.right
            gained = each.right and not trace.right
            return Exit(each.tokens, each.changed, lost, gained)
    return Exit(trace.tokens)
