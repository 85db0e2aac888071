"""Names of what is counted."""

from typing import Literal, get_args

__all__ = [
    "COVERED",
    "EXIT",
    "HOLDOUT",
    "JUDGED",
    "SCORES",
    "SERIES",
    "TRAINED",
    "TRAINED_HOLDOUT",
    "ArmName",
    "Contrast",
    "Measure",
    "holdout_series",
    "under",
]

ArmName = Literal["exited", "held"]
Measure = Literal["completion", "engine"]
"""completion: what the client received; engine: all that was generated for it."""
Contrast = Literal["exit", "training"]
"""With what the holdout compares: the same model without exits, or its base without exits."""

HOLDOUT, TRAINED_HOLDOUT = "holdout/", "training/holdout/"
"""Sums of a holdout that is served by the same model, and of one that the base serves."""
EXIT, TRAINED = "pairs/exit", "pairs/training"
"""Sums of what exits save, and of what training does."""
JUDGED = "judged"
"""Recent pairs: 1 where the exit left the answer as it was, 0 where not."""
COVERED = "covered"
"""Recent pairs: 1 where the interval that was shown held the length, 0 where not."""
SCORES = "scores"
"""Recent pairs: how far the length was outside the predicted interval, in tokens."""


def holdout_series(side: ArmName, measure: Measure, compared: Contrast = "exit") -> str:
    """Sums of one side."""
    return f"{HOLDOUT if compared == 'exit' else TRAINED_HOLDOUT}{side}/{measure}"


def under(series: str, fingerprint: str) -> str:
    """Recent values of one fingerprint of settings and weights; an empty one is of before there
    were any."""
    return f"{series}/{fingerprint}" if fingerprint else series


SERIES = (
    EXIT,
    TRAINED,
    *(
        holdout_series(side, measure, compared)
        for side in get_args(ArmName)
        for measure in get_args(Measure)
        for compared in get_args(Contrast)
    ),
)
"""Of sums, all there are."""
