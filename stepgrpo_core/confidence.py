"""Confidence of a model in an induced answer, from the log-probabilities of its tokens.

DEER (arXiv 2504.15895) and Step-GRPO's published code: exp of the mean log-probability of the
greedy tokens without the first one, and 0 unless the answer ends in ``</think>``. The last rule is
separate here (`ended_or_zero`), because not every model family closes an induced answer.
"""

import math
from collections.abc import Sequence
from typing import Literal

__all__ = ["Mean", "answer_confidence", "ended_or_zero"]

Mean = Literal["geometric", "arithmetic", "minimum"]

_LOWEST = -1e300  # stands for a probability of 0; sums of it stay finite


def answer_confidence(
    logprobs: Sequence[float | None], *, mean: Mean = "geometric", skip_first: bool = True
) -> float:
    """Return the confidence in [0, 1] of an answer with these token log-probabilities (natural
    log).

    `mean` of the probabilities is geometric (the papers), arithmetic, or minimum. `skip_first`
    ignores the first token, which only opens the answer.

    The confidence is 0, without an exception, if no token is left or any log-probability is None or
    NaN. Minus infinity is a probability of 0; values above 0, from rounding, count as 0.
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
    """Return `confidence`, or 0 for an induced answer that did not close the thinking."""
    return confidence if ended else 0.0
