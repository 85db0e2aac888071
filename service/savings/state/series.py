"""Names of the series in the state file."""

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
    "WATCHED",
    "ArmName",
    "Contrast",
    "Measure",
    "holdout_series",
    "under",
]

ArmName = Literal["exited", "held"]
"""Experiment arm: treatment (``exited``) or control (``held``)."""
Measure = Literal["completion", "engine"]
"""completion: tokens that the client received; engine: all tokens that were generated."""
Contrast = Literal["exit", "training"]
"""Treatment that the holdout withholds: exits, or the training of the model."""

HOLDOUT, TRAINED_HOLDOUT = "holdout/", "training/holdout/"
"""Prefixes of holdout sums, by contrast."""
EXIT, TRAINED = "pairs/exit", "pairs/training"
"""Pair sums of savings by exits, and by training."""
JUDGED = "judged"
"""Recent pairs: 1 if the answer was unchanged, otherwise 0."""
COVERED = "covered"
"""Recent pairs: 1 if the length was inside the predicted interval as reported, otherwise 0."""
SCORES = "scores"
"""Recent pairs: distance of the length from the predicted interval, in tokens."""
WATCHED = "watched"
"""Sums of requests under a guarantee, by fingerprint: answers that were kept, and changed."""


def holdout_series(arm: ArmName, measure: Measure, contrast: Contrast = "exit") -> str:
    """Return the series of one arm."""
    return f"{HOLDOUT if contrast == 'exit' else TRAINED_HOLDOUT}{arm}/{measure}"


def under(series: str, fingerprint: str) -> str:
    """Return the series of recent values under a fingerprint; an empty one means files of earlier
    versions."""
    return f"{series}/{fingerprint}" if fingerprint else series


SERIES = (
    EXIT,
    TRAINED,
    *(
        holdout_series(arm, measure, contrast)
        for arm in get_args(ArmName)
        for measure in get_args(Measure)
        for contrast in get_args(Contrast)
    ),
)
"""All series of sums."""
