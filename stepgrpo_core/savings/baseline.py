"""Predicted completion length without the exit, with a prediction interval.

Saved tokens are counterfactual. This module implements the method `predicted`: a calibration
records the lengths of the same model's completions without exits, by prompt length (which a server
knows and which correlates with difficulty), the start of each step, and the confidence of an
induced answer there. A truncated request is compared with the calibration runs nearest to it
(`nearest_runs`): their mean is the prediction, their 5 % and 95 % quantiles are its interval.

Without recorded steps, and with too few near runs, all runs are used that were longer than the
request at its exit, because the request had not ended by then either. If too few runs were that
long there is no prediction.
"""

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stepgrpo_core.errors import InvalidCalibration
from stepgrpo_core.policies import ExitSettings
from stepgrpo_core.savings.nearest_runs import ExitPoint, at_boundaries, nearest, under_way

__all__ = [
    "UNRECORDED",
    "Baseline",
    "Conditions",
    "LengthBin",
    "Prediction",
    "Run",
    "fit_baseline",
    "parse_baseline",
]

LEVEL = 0.90  # coverage of the prediction interval
MIN_RUNS = 20  # fewer runs do not determine a 90 % interval
PROBE_SETTINGS = ("inducing_prompt", "probe_max_tokens", "mean", "skip_first", "require_end")
"""Settings that the confidence of an induced answer depends on."""


@dataclass(frozen=True, slots=True)
class Run:
    """A completed run without an exit."""

    prompt_tokens: int
    completion_tokens: int
    starts: tuple[int, ...] | None = None
    """Completion tokens before each step marker, ascending; None if not recorded."""
    confidences: tuple[float | None, ...] | None = None
    """Confidence of an induced answer at each of `starts`, in [0, 1] with three decimals; an entry
    is None if its probe failed, the tuple if nothing was probed."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Settings for counting steps and inducing answers; others are not comparable."""

    markers: tuple[str, ...] | None = None
    """Step markers; None if steps were not recorded."""
    trials: Mapping[str, Any] | None = None
    """Values of the settings in `PROBE_SETTINGS`; None if nothing was probed."""

    @classmethod
    def of(cls, settings: ExitSettings, *, trials: bool = True) -> "Conditions":
        """Return the conditions of a controller with these settings."""
        made = {name: getattr(settings, name) for name in PROBE_SETTINGS}
        return cls(tuple(settings.markers), made if trials else None)


UNRECORDED = Conditions()
"""Conditions of a calibration that recorded lengths only."""


@dataclass(frozen=True, slots=True)
class LengthBin:
    """Calibration runs whose prompts had `low` to `high` tokens, both inclusive."""

    low: int
    high: int
    completion_tokens: tuple[int, ...]
    """Completion tokens of every run, ascending."""
    starts: tuple[tuple[int, ...], ...] | None = None
    """Step starts of every run, in the same order; see `Run`."""
    confidences: tuple[tuple[float | None, ...], ...] | None = None

    def nearest(self, at: ExitPoint) -> list[float]:
        """Return the lengths predicted by the nearest runs, ascending; empty without steps."""
        if self.starts is None:
            return []
        if at.confidence is None:
            return nearest(under_way(self.completion_tokens, self.starts, at))
        return nearest(at_boundaries(self.completion_tokens, self.starts, self.confidences, at))


@dataclass(frozen=True, slots=True)
class Prediction:
    """Expected completion tokens without the exit, with a 90 % prediction interval."""

    tokens: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """Completion lengths of a model without exits, by prompt length."""

    model: str
    """Name of the calibrated model."""
    sampling: Mapping[str, float]
    """Sampling parameters of the calibration runs; predictions are valid for these."""
    bins: tuple[LengthBin, ...]
    """Bins in ascending order, disjoint."""
    conditions: Conditions = UNRECORDED

    def under(self, settings: ExitSettings) -> "Baseline":
        """Return the part that is comparable with requests under `settings`.

        Steps are dropped if the markers differ, confidences if answers are induced otherwise.
        """
        given = Conditions.of(settings)
        if self.conditions.markers != given.markers:
            bins = tuple(replace(each, starts=None, confidences=None) for each in self.bins)
            return replace(self, bins=bins, conditions=UNRECORDED)
        if self.conditions.trials not in (None, given.trials):
            bins = tuple(replace(each, confidences=None) for each in self.bins)
            return replace(self, bins=bins, conditions=Conditions(given.markers))
        return self

    def predict(
        self,
        prompt_tokens: int,
        *,
        longer_than: int,
        steps: int | None = None,
        confidence: float | None = None,
    ) -> Prediction | None:
        """Predict the length of a run that had not ended after `longer_than` completion tokens.

        `steps` is k at that point. `confidence`, in [0, 1], is that of the induced answer at the
        step boundary of the exit; None for an exit elsewhere. Returns None if the prompt's length
        was not calibrated or too few runs were that long.
        """
        index = bisect_left([each.high for each in self.bins], prompt_tokens)
        if index == len(self.bins) or prompt_tokens < self.bins[index].low:
            return None
        found = self.bins[index]
        longer = found.completion_tokens[bisect_right(found.completion_tokens, longer_than) :]
        if len(longer) < MIN_RUNS:
            return None
        near = found.nearest(ExitPoint(longer_than, steps, confidence)) if steps else []
        if len(near) >= MIN_RUNS:
            return _prediction(near, len(near) + 1, -1)
        return _prediction(longer, len(longer) - 1, 0)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of a calibration file."""
        head: dict[str, Any] = {"model": self.model, "sampling": dict(self.sampling)}
        if self.conditions.markers is not None:
            head["markers"] = list(self.conditions.markers)
        if self.conditions.trials is not None:
            head["trials"] = dict(self.conditions.trials)
        return {**head, "bins": [_bin_as_dict(each) for each in self.bins]}


def fit_baseline(
    model: str,
    sampling: Mapping[str, float],
    runs: Iterable[Run],
    conditions: Conditions = UNRECORDED,
    *,
    bins: int = 6,
) -> Baseline:
    """Return a baseline from completed runs without exits, recorded under `conditions`.

    Data that `conditions` do not cover are dropped. Prompt lengths are split into at most `bins`
    bins of about equally many runs. Raises InvalidCalibration for fewer than `MIN_RUNS` runs, or if
    runs lack what `conditions` cover.
    """
    ordered = sorted(runs, key=lambda run: run.prompt_tokens)
    if len(ordered) < MIN_RUNS:
        raise InvalidCalibration(f"{len(ordered)} completed runs; at least {MIN_RUNS} are needed")
    size = max(MIN_RUNS, math.ceil(len(ordered) / bins))
    groups: list[list[Run]] = [[]]
    for run in ordered:
        if len(groups[-1]) >= size and groups[-1][-1].prompt_tokens != run.prompt_tokens:
            groups.append([])
        groups[-1].append(run)
    if len(groups) > 1 and len(groups[-1]) < MIN_RUNS:
        groups[-2:] = [groups[-2] + groups[-1]]
    made = (_bin(g[0].prompt_tokens, g[-1].prompt_tokens, g, conditions) for g in groups)
    return Baseline(model, dict(sampling), tuple(made), conditions)


def parse_baseline(data: Any) -> Baseline:
    """Parse the JSON of a calibration file; raises InvalidCalibration with the reason."""
    try:
        conditions = _parse_conditions(data)
        bins = tuple(_parse_bin(entry, conditions) for entry in data["bins"])
        baseline = Baseline(str(data["model"]), dict(data["sampling"]), bins, conditions)
        highs = [(each.low, each.high) for each in bins]
        if (
            not bins
            or any(low > high for low, high in highs)
            or any(a[1] >= b[0] for a, b in itertools.pairwise(highs))
        ):
            raise InvalidCalibration("bins must be present, ascending and disjoint")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InvalidCalibration):
            raise
        raise InvalidCalibration(f"not a calibration: {error!r}") from error
    return baseline


def _prediction(ordered: Sequence[float], size: int, first: int) -> Prediction:
    """Return mean and quantiles; the s-quantile has the rank s * `size` + `first`, from 0."""
    tail = (1 - LEVEL) / 2
    return Prediction(
        tokens=math.fsum(ordered) / len(ordered),
        low=_value_at(ordered, tail * size + first),
        high=_value_at(ordered, (1 - tail) * size + first),
    )


def _value_at(ordered: Sequence[float], place: float) -> float:
    """Interpolate linearly between order statistics; `place` is the rank, from 0."""
    below = min(math.floor(place), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


# Reading and writing files.


def _bin(low: int, high: int, runs: Iterable[Run], conditions: Conditions) -> LengthBin:
    """Return the bin of runs given in any order, with the data that `conditions` cover."""
    kept = sorted((_restricted(run, conditions) for run in runs), key=_sort_key)
    return LengthBin(
        low,
        high,
        tuple(run.completion_tokens for run in kept),
        None if conditions.markers is None else tuple(run.starts or () for run in kept),
        None if conditions.trials is None else tuple(run.confidences or () for run in kept),
    )


def _sort_key(run: Run) -> tuple[Any, ...]:
    confidences = [-1.0 if each is None else each for each in run.confidences or ()]
    return run.completion_tokens, run.starts or (), confidences


def _restricted(run: Run, conditions: Conditions) -> Run:
    """Return the data of a run that `conditions` cover; raises InvalidCalibration if invalid."""
    if conditions.markers is None:
        return replace(run, starts=None, confidences=None)
    places = (0, *(run.starts or ()), run.completion_tokens)
    if run.starts is None or any(a > b for a, b in itertools.pairwise(places)):
        what = f"steps of a run of {run.completion_tokens} tokens begin after {run.starts}"
        raise InvalidCalibration(f"{what}; they must ascend and be within the run")
    if conditions.trials is None:
        return replace(run, confidences=None)
    given = [each for each in run.confidences or () if each is not None]
    if len(run.confidences or ()) != len(run.starts) or not all(0 <= each <= 1 for each in given):
        what = f"confidences {run.confidences} of a run with steps at {run.starts}"
        raise InvalidCalibration(f"{what}; one from 0 to 1 or none belongs to each")
    return replace(run, confidences=tuple(map(_rounded, run.confidences or ())))


def _rounded(confidence: float | None) -> float | None:
    return None if confidence is None else round(confidence, 3)


def _bin_as_dict(runs: LengthBin) -> dict[str, Any]:
    """Return a bin in the file's format, with confidences in thousandths."""
    entry: dict[str, Any] = {
        "prompt_tokens": [runs.low, runs.high],
        "completion_tokens": list(runs.completion_tokens),
    }
    if runs.starts is not None:
        entry["steps"] = [list(each) for each in runs.starts]
    if runs.confidences is not None:
        entry["confidences"] = [
            [None if each is None else round(1000 * each) for each in confidences]
            for confidences in runs.confidences
        ]
    return entry


def _parse_conditions(data: Any) -> Conditions:
    markers, trials = data.get("markers"), data.get("trials")
    if markers is None and trials is not None:
        raise InvalidCalibration("trials without markers; record both")
    return Conditions(
        None if markers is None else tuple(map(str, markers)),
        None if trials is None else dict(trials),
    )


def _parse_bin(entry: Any, conditions: Conditions) -> LengthBin:
    low, high = entry["prompt_tokens"]
    lengths = entry["completion_tokens"]
    starts = _column(entry, "steps", len(lengths), recorded=conditions.markers is not None)
    confidences = _column(
        entry, "confidences", len(lengths), recorded=conditions.trials is not None
    )
    runs = (
        Run(int(low), int(length), _parse_starts(own), _parse_confidences(probed))
        for length, own, probed in zip(lengths, starts, confidences, strict=True)
    )
    return _bin(int(low), int(high), runs, conditions)


def _column(entry: Any, name: str, count: int, *, recorded: bool) -> Sequence[Any]:
    """Return one value per run, None for each if the column is not recorded."""
    if not recorded:
        return [None] * count
    column: Sequence[Any] = entry[name]
    if len(column) != count:
        raise InvalidCalibration(f"{name} of {len(column)} runs where there are {count}")
    return column


def _parse_starts(numbers: Any) -> tuple[int, ...] | None:
    return None if numbers is None else tuple(map(int, numbers))


def _parse_confidences(thousandths: Any) -> tuple[float | None, ...] | None:
    if thousandths is None:
        return None
    return tuple(None if each is None else int(each) / 1000 for each in thousandths)
