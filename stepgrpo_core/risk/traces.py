"""Traces: full runs of thinking with what the policy's signal said at every boundary.

A trace makes it possible to replay an exit policy at any threshold without generating again: the
policy exits at the first boundary whose signal is above the threshold, and never otherwise.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from stepgrpo_core.errors import InvalidCalibration

__all__ = [
    "LOSSES",
    "Exit",
    "Loss",
    "Reading",
    "Trace",
    "replay",
    "require_gold",
    "risk_by_question",
    "tokens_left",
]

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
    """A replayed run."""

    tokens: int
    """Thinking tokens that were generated."""
    changed: bool = False
    lost: bool = False
    gained: bool = False
    """The full run is wrong and the exited one is right."""


def replay(trace: Trace, threshold: float) -> Exit:
    """Return what the policy does on `trace` at `threshold`."""
    for each in trace.readings:
        if each.signal > threshold:
            lost = trace.right is True and each.right is False
            gained = trace.right is False and each.right is True
            return Exit(each.tokens, each.changed, lost, gained)
    return Exit(trace.tokens)


def risk_by_question(traces: Iterable[Trace], threshold: float, loss: Loss) -> list[float]:
    """Return the mean loss of every question's runs at `threshold`, each from 0 to 1."""
    runs: dict[str, list[bool]] = {}
    for each in traces:
        runs.setdefault(each.question, []).append(getattr(replay(each, threshold), loss))
    return [fmean(losses) for losses in runs.values()]


def require_gold(traces: Sequence[Trace], loss: Loss) -> None:
    """Raise InvalidCalibration if `loss` needs gold answers and one is missing."""
    if loss == "lost":
        for each in traces:
            if each.right is None or any(reading.right is None for reading in each.readings):
                raise InvalidCalibration(
                    f"question {each.question} has no gold answer, and the risk 'lost' needs one "
                    "for every question; use the risk 'changed'"
                )


def tokens_left(traces: Sequence[Trace], threshold: float) -> tuple[dict[str, int], dict[str, int]]:
    """Return the tokens of every question's runs, exited at `threshold` and in full."""
    exited: dict[str, int] = {}
    full: dict[str, int] = {}
    for each in traces:
        exited[each.question] = exited.get(each.question, 0) + replay(each, threshold).tokens
        full[each.question] = full.get(each.question, 0) + each.tokens
    return exited, full
