"""Estimates of savings: one for every model, policy and method.

`holdout` is the difference of means between the control arm, served without exits, and the
treatment arm. For a trained model whose base model serves the control arm, it compares the base
model with the trained model; if exits act on the trained model as well, the estimate is of both and
its source says so. Every admitted request counts in the arm that it was assigned to, however it
ended (intention to treat): leaving out aborted requests would introduce survivorship bias.

`measured` comes from pairs: the predicted savings of all exits, minus the mean error of the
predictions whose continuation was generated. Requests that were aborted, stopped or truncated by
their limit add nothing.

Estimates are computed within strata and combined by the number of treated requests (see
`state.strata`). A stratum with too little data is excluded and marked as such.
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
    ArmName,
    Contrast,
    Measure,
    holdout_series,
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

__all__ = ["SavingsEstimate", "StratumSummary", "TokenSavings", "estimate_savings"]

Source = Literal["exit", "training", "training+exit"]
Method = Literal["holdout", "measured"]
Groups = Mapping[int, Sums]
Series = Mapping[str, Groups]
Strata = Mapping[int, Series]


@dataclass(frozen=True, slots=True)
class TokenSavings:
    """Savings in tokens, once there is an interval."""

    saved_per_request: Estimate
    saved_total: Estimate
    net_saved_per_request: Estimate
    """Savings minus probe tokens and tokens generated after the exit."""
    net_saved_total: Estimate
    compression: Estimate
    """Completion tokens divided by the completion tokens without exits."""


@dataclass(frozen=True, slots=True)
class StratumSummary:
    """One stratum of an estimate."""

    since: float | None
    """Seconds since the epoch; None if an earlier version counted it."""
    facts: Mapping[str, Any]
    """Settings under which its requests were assigned and served; empty if an earlier version
    counted it."""
    requests: int
    compared: int
    included: bool
    """The estimate includes this stratum."""


@dataclass(frozen=True, slots=True)
class SavingsEstimate:
    """Savings of a model under a policy, by one method."""

    model_name: str
    policy: str
    source: Source
    """The cause of the savings: exits, training of the model, or both."""
    method: Method
    requests: int
    """Requests that could exit. Totals cover only included strata."""
    compared: int
    """Requests of the control arm, or pairs."""
    savings: TokenSavings | None
    """None if there is too little data."""
    unmeasurable: int = 0
    """Requests that exited but cannot be continued: stop strings, grammars, penalties."""
    agreement: Estimate | None = None
    """Share of judged pairs with an unchanged answer."""
    judged: int = 0
    strata: tuple[StratumSummary, ...] = ()
    """Strata in chronological order."""


def estimate_savings(
    sums: Mapping[Key, Sums], strata: Mapping[int, Stratum] = MappingProxyType({})
) -> list[SavingsEstimate]:
    """Return estimates from all sums of known series; `strata` describes the strata."""
    by: dict[tuple[str, str], dict[int, dict[str, dict[int, Sums]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    for key, found in sums.items():
        if key.series not in SERIES:
            continue
        stratum = by[key.model, key.policy][stratum_of(key.group)]
        stratum[key.series][group_of(key.group)] = found
    return [each for key in sorted(by) for each in _estimates(*key, by[key], strata)]


def _estimates(
    model: str, policy: str, by: Strata, known: Mapping[int, Stratum]
) -> Iterator[SavingsEstimate]:
    def with_series(prefix: str) -> dict[int, Series]:
        order = sorted(by, key=lambda number: known[number].since if number in known else 0.0)
        return {each: by[each] for each in order if any(s.startswith(prefix) for s in by[each])}

    if found := with_series(HOLDOUT):
        yield _holdout(model, policy, found, "exit", known)
    if found := with_series(TRAINED_HOLDOUT):
        yield _holdout(model, policy, found, "training", known)
    if found := with_series(EXIT):
        yield _measured(model, policy, "exit", {k: v[EXIT] for k, v in found.items()}, known)
    if found := with_series(TRAINED):
        yield _measured(model, policy, "training", {k: v[TRAINED] for k, v in found.items()}, known)


def _summary(
    number: int, known: Mapping[int, Stratum], requests: float, compared: float, *, included: bool
) -> StratumSummary:
    stratum = known.get(number)
    since, facts = (stratum.since, stratum.facts) if stratum else (None, {})
    return StratumSummary(since, facts, int(requests), int(compared), included)


def _holdout(
    model: str, policy: str, by: Strata, contrast: Contrast, known: Mapping[int, Stratum]
) -> SavingsEstimate:
    received, generated = (
        {number: _arms(series, measure, contrast) for number, series in by.items()}
        for measure in MEASURES
    )
    summaries = tuple(
        _summary(number, known, *map(_requests, arms), included=comparable(arms))
        for number, arms in received.items()
    )
    gross, net = compare_strata(*received.values()), compare_strata(*generated.values())
    return SavingsEstimate(
        model,
        policy,
        "training+exit" if contrast == "training" and policy != "none" else contrast,
        "holdout",
        sum(each.requests for each in summaries),
        sum(each.compared for each in summaries),
        _from_comparisons(gross, net) if gross and net else None,
        strata=summaries,
    )


MEASURES: tuple[Measure, Measure] = ("completion", "engine")


def _arms(series: Series, measure: Measure, contrast: Contrast) -> Arms:
    def arm(name: ArmName) -> dict[int, ServedTokens]:
        found = series.get(holdout_series(name, measure, contrast), {})
        return {group: ServedTokens(**each) for group, each in found.items()}

    return arm("exited"), arm("held")


def _requests(arm: Mapping[int, ServedTokens]) -> float:
    return sum(each.requests for each in arm.values())


def _from_comparisons(gross: Comparison, net: Comparison) -> TokenSavings:
    return TokenSavings(
        gross.saved,
        _scaled(gross.saved, gross.treatment),
        net.saved,
        _scaled(net.saved, net.treatment),
        gross.ratio,
    )


def _total(groups: Groups, *names: str) -> float:
    return sum(each.get(name, 0) for each in groups.values() for name in names)


def _measured(
    model: str, policy: str, source: Source, by: Mapping[int, Groups], known: Mapping[int, Stratum]
) -> SavingsEstimate:
    runs = {number: _runs(groups) for number, groups in by.items()}
    summaries = tuple(
        _summary(
            number,
            known,
            _total(groups, "requests", "natural"),
            _total(groups, "pairs"),
            included=measurable(runs[number]),
        )
        for number, groups in by.items()
    )
    included = [
        groups for groups, each in zip(by.values(), summaries, strict=True) if each.included
    ]
    found = total_savings(*runs.values())
    return SavingsEstimate(
        model,
        policy,
        source,
        "measured",
        sum(each.requests for each in summaries),
        sum(each.compared for each in summaries),
        _from_totals(found, included) if found else None,
        int(sum(_total(each, "unmeasurable") for each in by.values())),
        _agreement(list(by.values())),
        int(sum(_total(each, *JUDGED) for each in by.values())),
        summaries,
    )


JUDGED = ("agreed", "differed")


def _runs(groups: Groups) -> dict[int, Measured]:
    names = Measured._fields
    return {g: Measured(**{n: each.get(n, 0) for n in names}) for g, each in groups.items()}


def _agreement(strata: list[Groups]) -> Estimate | None:
    """Combine the agreement of strata with judged pairs, weighted by requests that exited."""
    weighted = [
        (_total(each, "requests"), found)
        for each in strata
        if (found := agreement(_total(each, "agreed"), _total(each, *JUDGED))) is not None
    ]
    requests = sum(weight for weight, _ in weighted)
    return combined((weight / requests, each) for weight, each in weighted) if requests else None


def _from_totals(saved: Estimate, strata: list[Groups]) -> TokenSavings:
    cost, tokens, requests = (
        sum(_total(each, *names) for each in strata)
        for names in (("cost",), ("tokens", "natural_tokens"), ("requests", "natural"))
    )
    net = Estimate(saved.value - cost, saved.low - cost, saved.high - cost)
    # With a very wide interval, one bound of the length without exits would be negative.
    shares = [tokens / max(tokens + more, 1) for more in (saved.value, saved.high, saved.low)]
    each = 1 / max(requests, 1)
    return TokenSavings(_scaled(saved, each), saved, _scaled(net, each), net, Estimate(*shares))


def _scaled(each: Estimate, factor: float) -> Estimate:
    return Estimate(each.value * factor, each.low * factor, each.high * factor)
