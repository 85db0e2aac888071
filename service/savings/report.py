"""Report of savings as JSON, CSV, a table, or metrics."""

import csv
import datetime
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from service.records.metric_table import family
from service.savings.estimates import SavingsEstimate, TokenSavings, estimate_savings
from service.savings.state.store import SumStore
from service.savings.state.strata import changes, describe_changes
from stepgrpo_core.savings.estimators import MIN_GROUPS
from stepgrpo_core.savings.intervals import LEVEL, Estimate

__all__ = ["ReportCollector", "as_csv", "as_json", "as_table", "read_estimates"]

_HEADER = (
    "model|policy|saved by|method|requests|compared|saved each|net|saved in all|tokens, %|"
    "same answer, %"
)
_SAVINGS = tuple(field.name for field in fields(TokenSavings))
_ESTIMATES = (*_SAVINGS, "agreement")


def read_estimates(store: SumStore) -> list[SavingsEstimate]:
    """Return the estimates from the sums that a store knows."""
    return estimate_savings(store.read(""), store.strata())


def as_json(rows: list[SavingsEstimate], warnings: Iterable[str] = ()) -> dict[str, Any]:
    """Return the response of ``GET /v1/stepgrpo/savings``."""
    return {
        "object": "list",
        "level": LEVEL,
        "complaints": [*warnings],
        "data": [_fields(row) | {"strata": _strata(row)} for row in rows],
    }


def _strata(row: SavingsEstimate) -> list[dict[str, Any]]:
    """Return strata in chronological order; ``changed`` holds the facts that differ from the
    previous one."""
    before = [None, *row.strata]
    return [
        {
            "since": part.since and _date(part.since),
            "requests": part.requests,
            "requests_compared": part.compared,
            "in_figures": part.included,
            "changed": changes(last.facts, part.facts) if last and last.facts else {},
        }
        for last, part in zip(before, row.strata, strict=False)
    ]


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _fields(row: SavingsEstimate) -> dict[str, Any]:
    return {
        "model_name": row.model_name,
        "policy": row.policy,
        "source": row.source,
        "method": row.method,
        "requests": row.requests,
        "requests_compared": row.compared,
        "requests_unmeasurable": row.unmeasurable,
        **{
            name: _rounded(name, getattr(row.savings, name) if row.savings else None)
            for name in _SAVINGS
        },
        "agreement": _rounded("agreement", row.agreement),
        "pairs_judged": row.judged,
    }


def _rounded(name: str, each: Estimate | None) -> dict[str, float] | None:
    digits = 4 if name in ("compression", "agreement") else 1
    if each is None or not all(map(math.isfinite, asdict(each).values())):
        return None  # a ratio of zero tokens is undefined
    return {part: round(value, digits) for part, value in asdict(each).items()}


def as_csv(rows: list[SavingsEstimate]) -> str:
    """Return the estimates as CSV; unknown values are empty."""
    out = io.StringIO()
    lines = [_columns(_fields(row)) | {"strata": len(row.strata)} for row in rows]
    names = [*_columns(_fields(SavingsEstimate("", "", "exit", "holdout", 0, 0, None))), "strata"]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _columns(figures: dict[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, value in figures.items():
        if name in _ESTIMATES:
            for part in ("value", "low", "high"):
                columns[f"{name}_{part}"] = None if value is None else value[part]
        else:
            columns[name] = value
    return columns


def as_table(data: dict[str, Any]) -> str:
    """Return a table for terminals from the JSON of `as_json`, which may come from a server."""
    head = tuple(_HEADER.split("|"))
    lines = [head, *(_line(figures) for figures in data["data"])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([*shown, "", *_notes(data)])


def _line(figures: dict[str, Any]) -> tuple[str, ...]:
    return (
        figures["model_name"],
        figures["policy"],
        figures["source"],
        figures["method"],
        f"{figures['requests']:,}",
        f"{figures['requests_compared']:,}",
        _interval_text(figures["saved_per_request"]),
        _interval_text(figures["net_saved_per_request"]),
        _interval_text(figures["saved_total"]),
        _interval_text(_percent(figures["compression"])),
        _interval_text(_percent(figures["agreement"]), "none judged")
        if figures["method"] == "measured"
        else "",
    )


def _percent(estimate: dict[str, float] | None) -> dict[str, float] | None:
    return None if estimate is None else {part: 100 * each for part, each in estimate.items()}


def _interval_text(estimate: dict[str, float] | None, missing: str = "too early") -> str:
    if estimate is None:
        return missing
    digits = 1 if abs(estimate["value"]) < 10_000 else 0
    value, low, high = (f"{estimate[part]:,.{digits}f}" for part in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _notes(data: dict[str, Any]) -> list[str]:
    warnings = [f"Warning: {each}." for each in data.get("complaints", [])]
    if not data["data"]:
        nothing = "No requests were counted: start the server with --exit-holdout or --exit-pairs."
        return warnings or [nothing]
    notes = [
        *warnings,
        f"Intervals are {100 * data['level']:.0f} % confidence intervals.",
        "holdout: compared with requests served without exits (training: by the base model).",
        "measured: compared with continuations without exits (training: of the base model).",
    ]
    if any(figures["saved_per_request"] is None for figures in data["data"]):
        notes.append(f"Too early: estimates need conversations in {MIN_GROUPS} random groups.")
    return [*notes, *(note for figures in data["data"] for note in _changes(figures))]


def _changes(figures: dict[str, Any]) -> Iterator[str]:
    """Yield notes about settings that changed while an estimate was counted."""
    strata = figures.get("strata", [])
    if len(strata) < 2:
        return
    name = f"{figures['model_name']}, {figures['policy']}, {figures['method']}"
    yield f"{name}: settings changed; {len(strata)} strata are estimated separately and combined:"
    for each in strata:
        counted = f"{each['requests']:,} requests, {each['requests_compared']:,} compared"
        left_out = "" if each["in_figures"] else "; too early, and excluded"
        yield f"  {_began(each)}: {counted}{left_out}"


def _began(stratum: dict[str, Any]) -> str:
    if stratum["since"] is None:
        return "by an earlier version, which did not record its settings"
    changed = describe_changes(stratum["changed"]) or "the first recorded settings"
    return f"since {stratum['since']}, {changed}"


class ReportCollector:
    """Collector of estimates as gauges, computed for each scrape."""

    def __init__(self, store: SumStore) -> None:
        self._store = store
        store.secret("state")  # created now, because a scrape must not wait for the file

    def collect(self) -> Iterator[Metric]:
        """Yield request counts, estimates that have an interval, and the identity of the state
        file: servers that share one report the same."""
        rows = read_estimates(self._store)
        yield from _holdout_metrics([row for row in rows if row.method == "holdout"])
        yield from _measured_metrics([row for row in rows if row.method == "measured"])
        state = family("state_info")
        # A prefix identifies the file; the secret itself is not exposed.
        state.add_metric([self._store.secret("state")[:6].hex()], 1)
        yield state
        unavailable = family("state_unavailable")
        unavailable.add_metric([], float(self._store.problem is not None))
        yield unavailable


def _holdout_metrics(rows: list[SavingsEstimate]) -> Iterator[Metric]:
    requests = family("holdout_requests")
    saved = family("holdout_saved_tokens")
    for row in rows:
        key = [row.model_name, row.policy, row.source]
        requests.add_metric([*key, "exited"], row.requests)
        requests.add_metric([*key, "held"], row.compared)
        if row.savings is not None:
            for measure, found in (
                ("gross", row.savings.saved_per_request),
                ("net", row.savings.net_saved_per_request),
            ):
                _add_bounds(saved, [*key, measure], found)
    yield requests
    yield saved


def _measured_metrics(rows: list[SavingsEstimate]) -> Iterator[Metric]:
    saved = family("measured_saved_tokens")
    same = family("agreement_ratio")
    for row in rows:
        key = [row.model_name, row.policy, row.source]
        if row.savings is not None:
            _add_bounds(saved, [*key, "gross"], row.savings.saved_total)
            _add_bounds(saved, [*key, "net"], row.savings.net_saved_total)
        if row.agreement is not None:
            _add_bounds(same, key, row.agreement)
    yield saved
    yield same


def _add_bounds(gauge: GaugeMetricFamily, labels: list[str], found: Estimate) -> None:
    for bound, value in asdict(found).items():
        gauge.add_metric([*labels, bound], value)
