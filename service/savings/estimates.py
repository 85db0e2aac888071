"""What is known of savings, a row for every model, policy and method.

`holdout`: the difference of means between those served without exits and all others; of a trained
model whose base serves those, between that and the trained model. Where exits act on this as well,
the row is of both, and named so. Every admitted request counts on the side it was dealt to,
whatever became of it: leaving out those that were cut off would compare the patient of one side
with the patient of the other.

`measured`: paired runs. Predictions of what exits saved, less the mean error of those that a paired
run measured. Requests that were aborted, stopped or cut by their limit add nothing.

Figures are made within strata and combined by the number of requests that exited (`strata`). A
stratum in which too little is known is left out of them, and said to be.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from service.savings.quality_gate import agreement
from service.savings.state.contents import Key, Stratum, Sums, group_of, stratum_of
from service.savings.state.series import (
    EXIT,
    HOLDOUT,
    SERIES,
    TRAINED,
    TRAINED_HOLDOUT,
    Compared,
    Measure,
    Side,
    holdout,
)
from stepgrpo_core.savings.estimators import (
    Arms,
    Comparison,
    Measured,
    ServedTokens,
    comparable,
    compare_strata,
    measurable,
    total_savings,
)
from stepgrpo_core.savings.intervals import Estimate, combined

__all__ = ["Figures", "Part", "Row", "rows_of"]

Source = Literal["exit", "training", "training+exit"]
Method = Literal["holdout", "measured"]
Groups = Mapping[int, Sums]
Series = Mapping[str, Groups]
Strata = Mapping[int, Series]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a row, once there is an interval. Tokens."""

    saved_per_request: Estimate
    saved_total: Estimate
    net_saved_per_request: Estimate
    """Less trial answers and what was generated past the cut."""
    net_saved_total: Estimate
    compression: Estimate
    """Completion tokens over what they would have been."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stratum of a row."""

    since: float | None
    """Seconds since the epoch; None: counted by an earlier version."""
    facts: Mapping[str, Any]
    """How its requests were dealt and served; of an earlier version none are known."""
    requests: int
    compared: int
    told: bool
    """The figures are also of it."""


@dataclass(frozen=True, slots=True)
class Row:
    """A model under a policy, by one method."""

    model_name: str
    policy: str
    source: Source
    """What saves: an exit from outside, the training of the model, or both together."""
    method: Method
    requests: int
    """That could exit. The totals are over those in strata that figures are of."""
    compared: int
    """Held out, or paired."""
    figures: Figures | None
    """None: too little is known yet."""
    unmeasurable: int = 0
    """That exited, and that no paired run can follow: stop strings, grammars, penalties."""
    agreement: Estimate | None = None
    """Share of judged pairs in which the answer stayed as it was."""
    judged: int = 0
    parts: tuple[Part, ...] = ()
    """Strata, in their order in time."""


def rows_of(
    sums: Mapping[Key, Sums], strata: Mapping[int, Stratum] = MappingProxyType({})
) -> list[Row]:
    """Of all sums of known series; `strata` are what is known of those."""
    by: dict[tuple[str, str], dict[int, dict[str, dict[int, Sums]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    for key, found in sums.items():
        if key.series not in SERIES:
            continue
        of = by[key.model, key.policy][stratum_of(key.group)]
        of[key.series][group_of(key.group)] = found
    return [row for key in sorted(by) for row in _rows(*key, by[key], strata)]


def _rows(model: str, policy: str, by: Strata, known: Mapping[int, Stratum]) -> Iterator[Row]:
    def having(prefix: str) -> dict[int, Series]:
        order = sorted(by, key=lambda number: known[number].since if number in known else 0.0)
        return {each: by[each] for each in order if any(s.startswith(prefix) for s in by[each])}

    if of := having(HOLDOUT):
        yield _holdout(model, policy, of, "exit", known)
    if of := having(TRAINED_HOLDOUT):
        yield _holdout(model, policy, of, "training", known)
    if of := having(EXIT):
        yield _measured(model, policy, "exit", {k: v[EXIT] for k, v in of.items()}, known)
    if of := having(TRAINED):
        yield _measured(model, policy, "training", {k: v[TRAINED] for k, v in of.items()}, known)


def _part(
    number: int, known: Mapping[int, Stratum], requests: float, compared: float, *, told: bool
) -> Part:
    of = known.get(number)
    since, facts = (of.since, of.facts) if of else (None, {})
    return Part(since, facts, int(requests), int(compared), told)


def _holdout(
    model: str, policy: str, by: Strata, compared: Compared, known: Mapping[int, Stratum]
) -> Row:
    received, generated = (
        {number: _sides(series, measure, compared) for number, series in by.items()}
        for measure in MEASURES
    )
    parts = tuple(
        _part(number, known, *map(_requests, sides), told=comparable(sides))
        for number, sides in received.items()
    )
    gross, net = compare_strata(*received.values()), compare_strata(*generated.values())
    return Row(
        model,
        policy,
        "training+exit" if compared == "training" and policy != "none" else compared,
        "holdout",
        sum(each.requests for each in parts),
        sum(each.compared for each in parts),
        _compared(gross, net) if gross and net else None,
        parts=parts,
    )


MEASURES: tuple[Measure, Measure] = ("completion", "engine")


def _sides(series: Series, measure: Measure, compared: Compared) -> Arms:
    def side(name: Side) -> dict[int, ServedTokens]:
        found = series.get(holdout(name, measure, compared), {})
        return {group: ServedTokens(**each) for group, each in found.items()}

    return side("exited"), side("held")


def _requests(side: Mapping[int, ServedTokens]) -> float:
    return sum(each.requests for each in side.values())


def _compared(gross: Comparison, net: Comparison) -> Figures:
    return Figures(
        gross.saved,
        _times(gross.saved, gross.treatment),
        net.saved,
        _times(net.saved, net.treatment),
        gross.ratio,
    )


def _total(groups: Groups, *names: str) -> float:
    return sum(each.get(name, 0) for each in groups.values() for name in names)


def _measured(
    model: str, policy: str, source: Source, by: Mapping[int, Groups], known: Mapping[int, Stratum]
) -> Row:
    runs = {number: _runs(groups) for number, groups in by.items()}
    parts = tuple(
        _part(
            number,
            known,
            _total(groups, "requests", "natural"),
            _total(groups, "pairs"),
            told=measurable(runs[number]),
        )
        for number, groups in by.items()
    )
    told = [groups for groups, part in zip(by.values(), parts, strict=True) if part.told]
    found = total_savings(*runs.values())
    return Row(
        model,
        policy,
        source,
        "measured",
        sum(each.requests for each in parts),
        sum(each.compared for each in parts),
        _totals(found, told) if found else None,
        int(sum(_total(each, "unmeasurable") for each in by.values())),
        _agreement(list(by.values())),
        int(sum(_total(each, *JUDGED) for each in by.values())),
        parts,
    )


JUDGED = ("agreed", "differed")


def _runs(groups: Groups) -> dict[int, Measured]:
    names = Measured._fields
    return {g: Measured(**{n: each.get(n, 0) for n in names}) for g, each in groups.items()}


def _agreement(strata: list[Groups]) -> Estimate | None:
    """Over the strata in which pairs were judged, by the requests that were cut."""
    parts = [
        (_total(each, "requests"), found)
        for each in strata
        if (found := agreement(_total(each, "agreed"), _total(each, *JUDGED))) is not None
    ]
    requests = sum(weight for weight, _ in parts)
    return combined((weight / requests, each) for weight, each in parts) if requests else None


def _totals(saved: Estimate, strata: list[Groups]) -> Figures:
    cost, tokens, requests = (
        sum(_total(each, *names) for each in strata)
        for names in (("cost",), ("tokens", "natural_tokens"), ("requests", "natural"))
    )
    net = Estimate(saved.value - cost, saved.low - cost, saved.high - cost)
    # Of an interval as wide as the whole, one end would be a length below nothing.
    shares = [tokens / max(tokens + more, 1) for more in (saved.value, saved.high, saved.low)]
    each = 1 / max(requests, 1)
    return Figures(_times(saved, each), saved, _times(net, each), net, Estimate(*shares))


def _times(each: Estimate, factor: float) -> Estimate:
    return Estimate(each.value * factor, each.low * factor, each.high * factor)
