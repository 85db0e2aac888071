"""What is known of savings, a row for every model, policy and method.

`holdout`: the difference of means between those served without exits and all others; of a trained
model whose base serves those, between that and the trained model. Where exits act on this as well,
the row is of both, and named so. Every admitted request counts on the side it was dealt to,
whatever became of it: leaving out those that were cut off would compare the patient of one side
with the patient of the other.

`measured`: paired runs. Predictions of what exits saved, less the mean error of those that a paired
run measured. Requests that were aborted, stopped or cut by their limit add nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from service.savings.quality import agreement
from service.savings.series import (
    EXIT,
    HOLDOUT,
    TRAINED,
    TRAINED_HOLDOUT,
    Compared,
    Measure,
    Side,
    holdout,
)
from service.savings.store import Key, Sums
from stepgrpo_core.fleet import Comparison, Measured, Served, compare, total_savings
from stepgrpo_core.intervals import Estimate

__all__ = ["PREFIXES", "Figures", "Row", "rows_of"]

PREFIXES = (HOLDOUT, TRAINED_HOLDOUT, EXIT, TRAINED)
Source = Literal["exit", "training", "training+exit"]
Method = Literal["holdout", "measured"]


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
class Row:
    """A model under a policy, by one method."""

    model_name: str
    policy: str
    source: Source
    """What saves: an exit from outside, the training of the model, or both together."""
    method: Method
    requests: int
    """That the totals are over."""
    compared: int
    """Held out, or paired."""
    figures: Figures | None
    """None: too little is known yet."""
    unmeasurable: int = 0
    """That exited, and that no paired run can follow: stop strings, grammars, penalties."""
    agreement: Estimate | None = None
    """Share of judged pairs in which the answer stayed as it was."""
    judged: int = 0


def rows_of(sums: Mapping[Key, Sums]) -> list[Row]:
    """Of all sums whose series begin with one of `PREFIXES`."""
    by: dict[tuple[str, str], dict[str, dict[int, Sums]]] = defaultdict(lambda: defaultdict(dict))
    for key, found in sums.items():
        by[key.model, key.policy][key.series][key.group] = found
    return [row for key in sorted(by) for row in _rows(*key, by[key])]


def _rows(model: str, policy: str, by: Mapping[str, Mapping[int, Sums]]) -> Iterable[Row]:
    if any(each.startswith(HOLDOUT) for each in by):
        yield _holdout(model, policy, by, "exit")
    if any(each.startswith(TRAINED_HOLDOUT) for each in by):
        yield _holdout(model, policy, by, "training")
    if EXIT in by:
        yield _measured(model, policy, "exit", by[EXIT])
    if TRAINED in by:
        yield _measured(model, policy, "training", by[TRAINED])


def _holdout(
    model: str, policy: str, by: Mapping[str, Mapping[int, Sums]], compared: Compared
) -> Row:
    def side(name: Side, measure: Measure) -> dict[int, Served]:
        found = by.get(holdout(name, measure, compared), {})
        return {group: Served(**each) for group, each in found.items()}

    exited, held = side("exited", "completion"), side("held", "completion")
    requests = int(sum(each.requests for each in exited.values()))
    gross, net = compare(exited, held), compare(side("exited", "engine"), side("held", "engine"))
    return Row(
        model,
        policy,
        "training+exit" if compared == "training" and policy != "none" else compared,
        "holdout",
        requests,
        int(sum(each.requests for each in held.values())),
        _compared(gross, net, requests) if gross and net else None,
    )


def _compared(gross: Comparison, net: Comparison, requests: int) -> Figures:
    return Figures(
        gross.saved,
        _times(gross.saved, requests),
        net.saved,
        _times(net.saved, requests),
        gross.ratio,
    )


def _measured(model: str, policy: str, source: Source, groups: Mapping[int, Sums]) -> Row:
    def total(name: str) -> float:
        return sum(each.get(name, 0) for each in groups.values())

    names = Measured._fields
    found = total_savings(
        {g: Measured(**{n: each.get(n, 0) for n in names}) for g, each in groups.items()}
    )
    requests = int(total("requests") + total("natural"))
    tokens, judged = total("tokens") + total("natural_tokens"), total("agreed") + total("differed")
    return Row(
        model,
        policy,
        source,
        "measured",
        requests,
        int(total("pairs")),
        _totals(found, total("cost"), tokens, requests) if found else None,
        int(total("unmeasurable")),
        agreement(total("agreed"), judged),
        int(judged),
    )


def _totals(saved: Estimate, cost: float, tokens: float, requests: int) -> Figures:
    net = Estimate(saved.value - cost, saved.low - cost, saved.high - cost)
    # Of an interval as wide as the whole, one end would be a length below nothing.
    shares = [tokens / max(tokens + each, 1) for each in (saved.value, saved.high, saved.low)]
    return Figures(
        _times(saved, 1 / requests), saved, _times(net, 1 / requests), net, Estimate(*shares)
    )


def _times(each: Estimate, factor: float) -> Estimate:
    return Estimate(each.value * factor, each.low * factor, each.high * factor)
