"""What a completion would have cost without the exit: predictions that carry an interval.

Saved tokens are a counterfactual. This file holds one method, `predicted`: a calibration
records how long the same model's completions are when nothing exits, per prompt length (which
a server sees, and which goes with difficulty). A request that was cut after t tokens is compared
with those calibration runs of similar prompts that were longer than t: the run it was cut from
had not ended by then either. The mean of those is the prediction, their 5 % and 95 % quantiles
its interval. Where no calibration run was that long there is no basis, and no number.
"""

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepgrpo_core.errors import InvalidCalibration

__all__ = ["Baseline", "LengthBin", "Prediction", "fit_baseline", "parse_baseline"]

LEVEL = 0.90  # of the prediction interval
MIN_RUNS = 20  # longer than t: fewer say too little about a 90 % interval


@dataclass(frozen=True, slots=True)
class LengthBin:
    """Calibration runs whose prompts had `low` to `high` tokens (both included)."""

    low: int
    high: int
    completion_tokens: tuple[int, ...]
    """Of every run, ascending."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Expected completion tokens without the exit, with a 90 % prediction interval."""

    tokens: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """The un-exited model's completion lengths by prompt length."""

    model: str
    """Name of the calibrated model."""
    sampling: Mapping[str, float]
    """Sampling parameters of the calibration runs; predictions hold for these."""
    bins: tuple[LengthBin, ...]
    """Ascending and disjoint."""

    def predict(self, prompt_tokens: int, *, longer_than: int) -> Prediction | None:
        """Prediction for a run that had not ended after `longer_than` completion tokens.

        None when the prompt's length was not calibrated or too few runs were that long.
        """
        index = bisect_left([each.high for each in self.bins], prompt_tokens)
        if index == len(self.bins) or prompt_tokens < self.bins[index].low:
            return None
        runs = self.bins[index].completion_tokens
        longer = runs[bisect_right(runs, longer_than) :]
        if len(longer) < MIN_RUNS:
            return None
        tail = (1 - LEVEL) / 2
        return Prediction(
            tokens=math.fsum(longer) / len(longer),
            low=_quantile(longer, tail),
            high=_quantile(longer, 1 - tail),
        )

    def as_dict(self) -> dict[str, Any]:
        """What a calibration file holds."""
        return {
            "model": self.model,
            "sampling": dict(self.sampling),
            "bins": [
                {
                    "prompt_tokens": [each.low, each.high],
                    "completion_tokens": list(each.completion_tokens),
                }
                for each in self.bins
            ],
        }


def fit_baseline(
    model: str,
    sampling: Mapping[str, float],
    runs: Iterable[tuple[int, int]],
    *,
    bins: int = 6,
) -> Baseline:
    """A baseline from (prompt tokens, completion tokens) of completed, un-exited runs.

    Prompt lengths are split into at most `bins` groups of about equally many runs.
    Raises InvalidCalibration when there are fewer than `MIN_RUNS` runs.
    """
    ordered = sorted(runs)
    if len(ordered) < MIN_RUNS:
        raise InvalidCalibration(f"{len(ordered)} completed runs; at least {MIN_RUNS} are needed")
    size = max(MIN_RUNS, math.ceil(len(ordered) / bins))
    groups: list[list[tuple[int, int]]] = [[]]
    for run in ordered:
        if len(groups[-1]) >= size and groups[-1][-1][0] != run[0]:
            groups.append([])
        groups[-1].append(run)
    if len(groups) > 1 and len(groups[-1]) < MIN_RUNS:
        groups[-2:] = [groups[-2] + groups[-1]]
    return Baseline(model, dict(sampling), tuple(_bin(group) for group in groups))


def parse_baseline(data: Any) -> Baseline:
    """The baseline in a calibration file's JSON; raises InvalidCalibration naming the fault."""
    try:
        bins = tuple(_parse_bin(entry) for entry in data["bins"])
        baseline = Baseline(str(data["model"]), dict(data["sampling"]), bins)
        highs = [(each.low, each.high) for each in bins]
        if (
            not bins
            or any(low > high for low, high in highs)
            or any(a[1] >= b[0] for a, b in itertools.pairwise(highs))
        ):
            raise InvalidCalibration("bins must be present, ascending and disjoint")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InvalidCalibration):
            raise
        raise InvalidCalibration(f"not a calibration: {error!r}") from error
    return baseline


def _parse_bin(entry: Any) -> LengthBin:
    low, high = entry["prompt_tokens"]
    return LengthBin(int(low), int(high), tuple(sorted(map(int, entry["completion_tokens"]))))


def _bin(group: Sequence[tuple[int, int]]) -> LengthBin:
    return LengthBin(group[0][0], group[-1][0], tuple(sorted(length for _, length in group)))


def _quantile(ordered: Sequence[int], share: float) -> float:
    """Linear interpolation between order statistics."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
