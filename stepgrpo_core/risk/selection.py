"""Selection of a threshold: the cheapest whose risk is proved to be under a bound.

Learn then Test (Angelopoulos et al. 2021) with fixed-sequence testing: candidates are tested from
the safest to the cheapest, each at level delta, until one fails. The last that passed has a risk of
at most epsilon with probability 1 - delta over the draw of the questions. Picking the cheapest
candidate whose *observed* risk is under epsilon has no such guarantee: it selects by luck.

Several sequences, as of competing policies, are tested at delta divided by their number. All
candidates that pass then hold together, and the cheapest of them may be picked (Bonferroni).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from stepgrpo_core.errors import InvalidCalibration, InvalidSetting
from stepgrpo_core.risk.testing import p_value, upper_bound
from stepgrpo_core.risk.traces import Exit, Loss, Run, Trace, replay

__all__ = [
    "Candidate",
    "Selection",
    "questions_needed",
    "risk_by_question",
    "select",
    "select_threshold",
]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One threshold on the calibration questions."""

    threshold: float | str
    risk: float
    """Observed, from 0 to 1."""
    bound: float
    """Upper bound of the risk at this confidence, for this threshold alone."""
    p_value: float
    tokens_left: float
    """Thinking tokens with exits over those without."""
    cost: float
    """The same with the tokens of probes."""
    valid: bool
    """It and all safer thresholds passed their test."""


@dataclass(frozen=True, slots=True)
class Selection:
    """All candidates, the safest first, and the one to use."""

    loss: Loss
    epsilon: float
    delta: float
    questions: int
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate | None:
        """Return the cheapest valid candidate, or None."""
        valid = [each for each in self.candidates if each.valid]
        return min(reversed(valid), key=lambda each: each.cost, default=None)

    @property
    def least_epsilon(self) -> float:
        """Return the smallest epsilon for which the safest candidate would be valid."""
        return self.candidates[0].bound


def questions_needed(epsilon: float, delta: float) -> int:
    """Return how many questions without one failure prove a risk of at most `epsilon`.

    45 prove 5 % and 114 prove 2 % with delta 0.1; every failure takes more. Raises InvalidSetting.
    """
    _check(epsilon, delta)
    return math.ceil(math.log(delta) / math.log1p(-epsilon))


def select(
    runs: Sequence[Run],
    thresholds: Sequence[float | str],
    *,
    loss: Loss = "changed",
    epsilon: float = 0.02,
    delta: float = 0.1,
) -> Selection:
    """Return every threshold's risk and the cheapest that is valid.

    The order of the tests is that of `thresholds`, fixed before the data are seen: the safest comes
    first. Each run has one exit for each of them.
    Raises InvalidSetting for bounds outside (0, 1) and InvalidCalibration for missing answers.
    """
    _check(epsilon, delta)
    if not thresholds:
        raise InvalidSetting("thresholds", [], "give at least one threshold")
    found: list[Candidate] = []
    full, valid = sum(each.tokens for each in runs), bool(runs)
    for index, threshold in enumerate(thresholds):
        exits = [each.exits[index] for each in runs]
        losses = _mean_by_question([each.question for each in runs], exits, loss)
        p = p_value(losses, epsilon)
        valid = valid and p <= delta
        tokens = sum(each.tokens for each in exits)
        probes = sum(each.probe_tokens for each in exits)
        found.append(
            Candidate(
                threshold,
                risk=math.fsum(losses) / max(len(losses), 1),
                bound=upper_bound(losses, delta),
                p_value=p,
                tokens_left=tokens / full if full else 1.0,
                cost=(tokens + probes) / full if full else 1.0,
                valid=valid,
            )
        )
    return Selection(loss, epsilon, delta, len({each.question for each in runs}), tuple(found))


def select_threshold(
    traces: Sequence[Trace],
    thresholds: Iterable[float],
    *,
    loss: Loss = "changed",
    epsilon: float = 0.02,
    delta: float = 0.1,
) -> Selection:
    """Return what `select` does with replays of `traces`; the highest threshold is the safest."""
    ordered = sorted(set(thresholds), reverse=True)
    runs = [
        Run(each.question, each.tokens, tuple(replay(each, threshold) for threshold in ordered))
        for each in traces
    ]
    return select(runs, ordered, loss=loss, epsilon=epsilon, delta=delta)


def risk_by_question(traces: Sequence[Trace], threshold: float, loss: Loss) -> list[float]:
    """Return the mean loss of every question's runs at `threshold`, each from 0 to 1."""
    exits = [replay(each, threshold) for each in traces]
    return _mean_by_question([each.question for each in traces], exits, loss)


def _mean_by_question(questions: Iterable[str], exits: Iterable[Exit], loss: Loss) -> list[float]:
    runs: dict[str, list[bool]] = {}
    for question, each in zip(questions, exits, strict=True):
        value: bool | None = getattr(each, loss)
        if value is None:
            raise InvalidCalibration(
                f"question {question} has no gold answer, and the risk 'lost' needs one for every "
                "question; use the risk 'changed'"
            )
        runs.setdefault(question, []).append(value)
    return [fmean(losses) for losses in runs.values()]


def _check(epsilon: float, delta: float) -> None:
    for name, value in (("epsilon", epsilon), ("delta", delta)):
        if not 0 < value < 1:
            raise InvalidSetting(name, value, "use a number between 0 and 1")
