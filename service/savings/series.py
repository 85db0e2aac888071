"""Names of what is counted."""

from typing import Literal

__all__ = [
    "COVERED",
    "EXIT",
    "HOLDOUT",
    "JUDGED",
    "SCORES",
    "TRAINED",
    "Measure",
    "Side",
    "holdout",
]

Side = Literal["exited", "held"]
Measure = Literal["completion", "engine"]
"""completion: what the client received; engine: all that was generated for it."""

HOLDOUT = "holdout/"
EXIT, TRAINED = "pairs/exit", "pairs/training"
"""Sums of what exits save, and of what training does."""
JUDGED = "judged"
"""Recent pairs: 1 where the exit left the answer as it was, 0 where not."""
COVERED = "covered"
"""Recent pairs: 1 where the interval that was shown held the length, 0 where not."""
SCORES = "scores"
"""Recent pairs: how far the length was outside the predicted interval, in tokens."""


def holdout(side: Side, measure: Measure) -> str:
    """Sums of one side."""
    return f"{HOLDOUT}{side}/{measure}"
