"""Statistics of evaluated completions: results of a contender, and its comparison with the
baseline.

For the intervals see `training.evaluation.intervals`. *Compression* is tokens over the baseline's
tokens (below 1 is shorter): as the ratio of means (total cost) and as the mean over questions of
the ratio (every question has the same weight). *Macro* results are means over tasks with equal
weights; their ratio of means is that of the macro means.
"""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stepgrpo_core import ExitReason
from stepgrpo_core.savings.intervals import Estimate
from training.evaluation.intervals import (
    RESAMPLES,
    Array,
    accuracy_interval,
    bootstrap,
    difference_interval,
    mean_interval,
    mean_of,
    percentiles,
    resamples_of,
)
from training.evaluation.passing import majority, pass_at
from training.evaluation.records import Record

__all__ = [
    "Comparison",
    "Estimate",
    "Summary",
    "Unpaired",
    "summarize",
    "summarize_groups",
    "summarize_tasks",
]


class Unpaired(ValueError):
    """Two contenders have different questions or numbers of samples."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison with the baseline on the same questions and sample numbers."""

    accuracy: Estimate | None
    """Difference over pairs of completions that are both graded; None if there are none."""
    accuracy_by_exits: Estimate | None
    """The same difference, counted as zero if both ended inside the thinking by the end-of-sequence
    token: exit policies then close the thinking and generate an answer, and policy none does
    not."""
    tokens: Estimate
    """Difference in tokens."""
    ratio_of_means: Estimate
    mean_of_ratios: Estimate
    net_ratio_of_means: Estimate
    """Ratio with the probe tokens of both."""
    net_mean_of_ratios: Estimate


@dataclass(frozen=True, slots=True)
class Summary:
    """One contender on one task, or over all tasks. Token counts are means over completions."""

    questions: int
    completions: int
    unscored: int
    """Completions left out of `accuracy`."""
    unevaluated: int
    """Completions of the right value with unevaluated arithmetic; wrong in `accuracy`, not in
    `lenient`."""
    lenient_unscored: int
    accuracy: Estimate | None
    """Strict accuracy; None if nothing could be graded."""
    lenient: Estimate | None
    pass_at: dict[int, Estimate]
    """pass@k by k; empty with one sample per question."""
    majority: Estimate | None
    """maj@n of all samples; None with one sample, or if records do not tell which answers are the
    same."""
    formatted: float
    """Share with a box after the thinking."""
    truncated: float
    """Share that reached the token limit."""
    tokens: Estimate
    net_tokens: Estimate
    """Tokens with probe tokens."""
    probe_tokens: float
    discarded_tokens: float
    """Tokens generated after exits; included in neither of the above."""
    reasoning_tokens: float
    probes: float
    steps: float
    tokens_per_step: float | None
    """All tokens over all steps; None without steps."""
    exits: dict[str, int]
    """Number of completions by the reason that ended their thinking."""
    versus: Comparison | None
    """Comparison with the baseline; None for the baseline itself, or without one."""


def summarize(
    records: Iterable[Record],
    baseline: Iterable[Record] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Summary:
    """Return all results of one contender on one task; `baseline` has the other's on the same task.

    Raises ValueError without records, and Unpaired if the two have different questions or samples.
    """
    mine = _Columns.of(records)
    weights = resamples_of(len(mine.names), resamples, seed)
    tokens, net = mine.means("tokens"), mine.means("tokens", "probe_tokens")
    steps = sum(each.steps for each in mine.records)
    return Summary(
        questions=len(mine.names),
        completions=len(mine.records),
        unscored=sum(each.correct is None for each in mine.records),
        unevaluated=sum(each.verdict == "unevaluated" for each in mine.records),
        lenient_unscored=sum(each.lenient is None for each in mine.records),
        accuracy=accuracy_interval(mine.scores("correct")),
        lenient=accuracy_interval(mine.scores("lenient")),
        pass_at=pass_at(mine.records),
        majority=majority(mine.records),
        formatted=mine.mean("formatted"),
        truncated=1 - mine.mean("ended"),
        tokens=mean_interval(tokens, weights),
        net_tokens=mean_interval(net, weights),
        probe_tokens=mine.mean("probe_tokens"),
        discarded_tokens=mine.mean("discarded_tokens"),
        reasoning_tokens=mine.mean("reasoning_tokens"),
        probes=mine.mean("probes"),
        steps=mine.mean("steps"),
        tokens_per_step=sum(each.tokens for each in mine.records) / steps if steps else None,
        exits=dict(sorted(Counter(each.exit for each in mine.records).items())),
        versus=None if baseline is None else _compare(mine, _Columns.of(baseline), weights),
    )


def _compare(mine: "_Columns", other: "_Columns", weights: Array) -> Comparison:
    if mine.places != other.places:
        missing = sorted(mine.places ^ other.places)[:3]
        raise Unpaired(
            f"the baseline has other questions or samples, {missing} for example are in one of "
            "the two only; evaluate both with the same --limit and --samples"
        )
    tokens, net = (mine.means("tokens"), mine.means("tokens", "probe_tokens"))
    base, base_net = (other.means("tokens"), other.means("tokens", "probe_tokens"))
    return Comparison(
        accuracy=difference_interval(mine.differences(other), weights),
        accuracy_by_exits=difference_interval(mine.differences(other, closed=False), weights),
        tokens=bootstrap(tokens - base, weights),
        ratio_of_means=bootstrap(tokens, weights, base),
        mean_of_ratios=bootstrap(tokens / base, weights),
        net_ratio_of_means=bootstrap(net, weights, base_net),
        net_mean_of_ratios=bootstrap(net / base_net, weights),
    )


@dataclass(frozen=True, slots=True)
class _Columns:
    """Records of one contender on one task, by question."""

    records: list[Record]
    names: list[str]
    places: frozenset[tuple[str, int]]

    @classmethod
    def of(cls, records: Iterable[Record]) -> "_Columns":
        ordered = sorted(records, key=lambda each: (each.question, each.sample))
        if not ordered:
            raise ValueError("there are no completions to summarize; evaluate first")
        places = frozenset((each.question, each.sample) for each in ordered)
        if len(places) < len(ordered):
            raise ValueError("a question has the same sample twice; summarize one task at a time")
        return cls(ordered, sorted({each.question for each in ordered}), places)

    def mean(self, name: str) -> float:
        return math.fsum(getattr(each, name) for each in self.records) / len(self.records)

    def means(self, *names: str) -> Array:
        """Return (Q,) sums of the columns, each the mean over the question's samples."""
        found: dict[str, list[float]] = {name: [] for name in self.names}
        for each in self.records:
            found[each.question].append(sum(getattr(each, name) for name in names))
        return np.array([math.fsum(found[name]) / len(found[name]) for name in self.names])

    def scores(self, name: str) -> list[list[bool]]:
        """Return the graded samples of every question that has any."""
        found: dict[str, list[bool]] = {name: [] for name in self.names}
        for each in self.records:
            if (score := getattr(each, name)) is not None:
                found[each.question].append(score)
        return [scores for scores in found.values() if scores]

    def differences(self, other: "_Columns", *, closed: bool = True) -> list[list[int]]:
        """Return for every question the correctness here minus there, of the samples graded in
        both.

        Without `closed` it is 0 if both ended inside the thinking by the end-of-sequence token.
        """
        found: dict[str, list[int]] = {name: [] for name in self.names}
        for here, there in zip(self.records, other.records, strict=True):
            if here.correct is not None and there.correct is not None:
                same = not closed and here.exit == there.exit == ExitReason.EOS_IN_THINKING
                difference = 0 if same else int(here.correct) - int(there.correct)
                found[here.question].append(difference)
        return list(found.values())


def summarize_groups(
    records: Sequence[Record],
    baseline: Sequence[Record] | None,
    task: str,
    *,
    resamples: int = RESAMPLES,
) -> dict[tuple[str, str], Summary]:
    """Return a summary of the questions of every group (column, value), in the order of values."""
    groups = {each.question: each.groups for each in (*(baseline or ()), *records) if each.groups}
    mine, base = _by_group(records, groups), _by_group(baseline or (), groups)
    return {
        group: summarize(
            mine[group],
            base.get(group),
            resamples=resamples,
            seed=zlib.crc32(f"{task} {group}".encode()),
        )
        for group in sorted(mine, key=_place)
    }


def _by_group(
    records: Iterable[Record], groups: Mapping[str, Iterable[tuple[str, str]]]
) -> dict[tuple[str, str], list[Record]]:
    """Return the records of every group; `groups` also covers records of older files without
    groups."""
    found: dict[tuple[str, str], list[Record]] = {}
    for each in records:
        for group in groups.get(each.question, ()):
            found.setdefault(group, []).append(each)
    return found


def _place(group: tuple[str, str]) -> tuple[str, int, str]:
    """Return the sort key of a group: numbers before text, by size, so 9 is before 10."""
    column, value = group
    return column, len(value) if value.isdecimal() else 99, value


def summarize_tasks(
    records: Mapping[str, Sequence[Record]],
    baseline: Mapping[str, Sequence[Record]] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[dict[str, Summary], Summary | None]:
    """Return the summary of one contender on each task, and the macro mean of two or more.
    Resamples are independent between tasks, and the same for all contenders."""
    seeds = {task: seed ^ zlib.crc32(task.encode()) for task in records}
    base = baseline or {}
    if baseline is not None and set(base) != set(records):
        raise Unpaired(f"the baseline has other tasks: {sorted(set(base) ^ set(records))}")
    summaries = {
        task: summarize(found, base.get(task), resamples=resamples, seed=seeds[task])
        for task, found in records.items()
    }
    if len(records) < 2:
        return summaries, None
    versus = None
    if baseline is not None:
        versus = _macro_comparison(records, base, summaries, resamples, seeds)
    return summaries, _macro(list(summaries.values()), versus)


def _macro(parts: Sequence[Summary], versus: Comparison | None) -> Summary:
    def mean(value: Callable[[Summary], float]) -> float:
        return math.fsum(map(value, parts)) / len(parts)

    exits: Counter[str] = Counter()
    for each in parts:
        exits.update(each.exits)
    per_step = [each.tokens_per_step for each in parts if each.tokens_per_step is not None]
    return Summary(
        questions=sum(each.questions for each in parts),
        completions=sum(each.completions for each in parts),
        unscored=sum(each.unscored for each in parts),
        unevaluated=sum(each.unevaluated for each in parts),
        lenient_unscored=sum(each.lenient_unscored for each in parts),
        accuracy=_mean_of([each.accuracy for each in parts]),
        lenient=_mean_of([each.lenient for each in parts]),
        pass_at={
            k: mean_of([each.pass_at[k] for each in parts])
            for k in parts[0].pass_at
            if all(k in each.pass_at for each in parts)
        },
        majority=_mean_of([each.majority for each in parts]),
        formatted=mean(lambda each: each.formatted),
        truncated=mean(lambda each: each.truncated),
        tokens=mean_of([each.tokens for each in parts]),
        net_tokens=mean_of([each.net_tokens for each in parts]),
        probe_tokens=mean(lambda each: each.probe_tokens),
        discarded_tokens=mean(lambda each: each.discarded_tokens),
        reasoning_tokens=mean(lambda each: each.reasoning_tokens),
        probes=mean(lambda each: each.probes),
        steps=mean(lambda each: each.steps),
        tokens_per_step=math.fsum(per_step) / len(parts) if len(per_step) == len(parts) else None,
        exits=dict(sorted(exits.items())),
        versus=versus,
    )


def _mean_of(estimates: Sequence[Estimate | None]) -> Estimate | None:
    """Return the mean; None if one estimate is None, because a mean over other tasks is not
    comparable."""
    known = [each for each in estimates if each is not None]
    return mean_of(known) if len(known) == len(estimates) else None


def _macro_comparison(
    records: Mapping[str, Sequence[Record]],
    baseline: Mapping[str, Sequence[Record]],
    summaries: Mapping[str, Summary],
    resamples: int,
    seeds: Mapping[str, int],
) -> Comparison:
    parts = [each.versus for each in summaries.values() if each.versus is not None]

    def ratio(*names: str) -> Estimate:
        """Return the ratio of the macro means; every task is resampled independently."""
        above, below = np.zeros(resamples + 1), np.zeros(resamples + 1)  # 0: the estimate
        for task, seed in seeds.items():
            mine, other = _Columns.of(records[task]), _Columns.of(baseline[task])
            weights = resamples_of(len(mine.names), resamples, seed)
            above += _with_replicates(mine.means(*names), weights)
            below += _with_replicates(other.means(*names), weights)
        ratios = above / below
        fewest = min(each.questions for each in summaries.values())
        return percentiles(float(ratios[0]), ratios[1:], fewest)

    return Comparison(
        accuracy=_mean_of([each.accuracy for each in parts]),
        accuracy_by_exits=_mean_of([each.accuracy_by_exits for each in parts]),
        tokens=mean_of([each.tokens for each in parts]),
        ratio_of_means=ratio("tokens"),
        mean_of_ratios=mean_of([each.mean_of_ratios for each in parts]),
        net_ratio_of_means=ratio("tokens", "probe_tokens"),
        net_mean_of_ratios=mean_of([each.net_mean_of_ratios for each in parts]),
    )


def _with_replicates(values: Array, weights: Array) -> Array:
    return np.append(values.mean(), weights @ values / len(values))
