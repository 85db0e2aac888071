"""How sure a model is of a trial answer, from the log-probabilities of its tokens.

DEER (arXiv 2504.15895) and Step-GRPO's published code: exp of the mean log-probability of the
greedy tokens, the first one skipped, and 0 unless the trial ends in ``</think>``. The last part
is a separate rule here (`ended_or_zero`), because not every model family closes its trial.
"""

import math
from collections.abc import Sequence
from typing import Literal

__all__ = ["Mean", "answer_confidence", "ended_or_zero"]

Mean = Literal["geometric", "arithmetic", "minimum"]

_LOWEST = -1e300  # a probability of 0, and sums of any number of them are floats


def answer_confidence(
    logprobs: Sequence[float | None], *, mean: Mean = "geometric", skip_first: bool = True
) -> float:
    """Confidence in [0, 1] of a trial answer with these token log-probabilities (natural log).

    `mean` is taken over the probabilities: geometric (the papers), arithmetic, or minimum.
    `skip_first` leaves out the first token, which opens the answer and says nothing about it.

    Without evidence the confidence is 0, never an exception: no tokens, one token that is
    skipped, or any log-probability that is None or NaN. Minus infinity is a probability of 0;
    values above 0, which rounding produces, count as 0 (probability 1).
    """
    used = logprobs[1:] if skip_first else logprobs
    if not used:
        return 0.0
    values: list[float] = []
    for value in used:
        if value is None or math.isnan(value):
            return 0.0
        values.append(min(max(value, _LOWEST), 0.0))
    if mean == "minimum":
        return math.exp(min(values))
    if mean == "arithmetic":
        return math.fsum(map(math.exp, values)) / len(values)
    return math.exp(math.fsum(values) / len(values))


def ended_or_zero(confidence: float, *, ended: bool) -> float:
    """The require-end rule: a trial that did not end its thinking has confidence 0."""
    return confidence if ended else 0.0
