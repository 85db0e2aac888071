"""What exits saved, as a randomised holdout shows it: by model and policy, as JSON, CSV or a table.

Every admitted request counts on the side it was dealt to, whatever became of it: leaving out those
that were cut off would compare the patient of one side with the patient of the other.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from service.savings.store import Key, Measure, Side, SumStore
from stepgrpo_core.fleet import MIN_GROUPS, Comparison, Served, compare
from stepgrpo_core.intervals import LEVEL, Estimate

__all__ = ["HoldoutCollector", "Row", "as_csv", "as_json", "as_table", "savings_rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """A model under a policy."""

    model_name: str
    policy: str
    exited: int
    """Requests under the policy."""
    held: int
    """Requests without exits that would have been."""
    gross: Comparison | None
    """Completion tokens; None: too little is known yet."""
    net: Comparison | None
    """All tokens that the engine generated, trial answers among them."""


def savings_rows(sums: Mapping[Key, Served]) -> list[Row]:
    """One row for every model and policy that there are sums of."""
    sides: dict[tuple[str, str], dict[tuple[Measure, Side], dict[int, Served]]] = {}
    for key, served in sums.items():
        sides.setdefault((key.model, key.policy), defaultdict(dict))[key.measure, key.side][
            key.group
        ] = served
    return [_row(model, policy, sides[model, policy]) for model, policy in sorted(sides)]


def _row(model: str, policy: str, sides: dict[tuple[Measure, Side], dict[int, Served]]) -> Row:
    return Row(
        model,
        policy,
        exited=sum(each.requests for each in sides["completion", "exited"].values()),
        held=sum(each.requests for each in sides["completion", "held"].values()),
        gross=compare(sides["completion", "exited"], sides["completion", "held"]),
        net=compare(sides["engine", "exited"], sides["engine", "held"]),
    )


def as_json(rows: list[Row]) -> dict[str, Any]:
    """The response of ``GET /v1/stepgrpo/savings``."""
    return {"object": "list", "level": LEVEL, "data": [_flat(row) for row in rows]}


def _flat(row: Row) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "model_name": row.model_name,
        "policy": row.policy,
        "method": "holdout",
        "requests_exited": row.exited,
        "requests_held": row.held,
        "saved_per_request": None,
        "saved_total": None,
        "compression": None,
        "net_saved_per_request": None,
        "net_saved_total": None,
    }
    if row.gross is not None and row.net is not None:
        figures |= {
            "saved_per_request": _rounded(row.gross.saved),
            "saved_total": _rounded(_times(row.gross.saved, row.exited)),
            "compression": _rounded(row.gross.ratio, 4),
            "net_saved_per_request": _rounded(row.net.saved),
            "net_saved_total": _rounded(_times(row.net.saved, row.exited)),
        }
    return figures


def _times(each: Estimate, count: int) -> Estimate:
    return Estimate(each.value * count, each.low * count, each.high * count)


def _rounded(each: Estimate, digits: int = 1) -> dict[str, float]:
    return {name: round(value, digits) for name, value in asdict(each).items()}


def as_csv(rows: list[Row]) -> str:
    """The same figures in columns; what is not known yet is empty."""
    out = io.StringIO()
    lines = [_columns(_flat(row)) for row in rows]
    names = list(_columns(_flat(Row("", "", 0, 0, None, None))))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _columns(figures: dict[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, dict) or name in _ESTIMATES:
            for part in ("value", "low", "high"):
                columns[f"{name}_{part}"] = None if value is None else value[part]
        else:
            columns[name] = value
    return columns


_ESTIMATES = {
    "saved_per_request",
    "saved_total",
    "compression",
    "net_saved_per_request",
    "net_saved_total",
}


def as_table(data: dict[str, Any]) -> str:
    """What `as_json` says, for people; takes the JSON, which may come from a server."""
    head = ("model", "policy", "requests", "held", "saved each", "net", "saved in all", "tokens, %")
    lines = [head, *(_line(figures) for figures in data["data"])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([*shown, "", *_notes(data)])


def _line(figures: dict[str, Any]) -> tuple[str, ...]:
    compression = figures["compression"]
    percent = None if compression is None else {k: 100 * v for k, v in compression.items()}
    return (
        figures["model_name"],
        figures["policy"],
        f"{figures['requests_exited']:,}",
        f"{figures['requests_held']:,}",
        _shown(figures["saved_per_request"]),
        _shown(figures["net_saved_per_request"]),
        _shown(figures["saved_total"]),
        _shown(percent),
    )


def _shown(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "too early"
    digits = 1 if abs(estimate["value"]) < 10_000 else 0
    value, low, high = (f"{estimate[part]:,.{digits}f}" for part in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _notes(data: dict[str, Any]) -> list[str]:
    if not data["data"]:
        return ["Nothing was counted yet: start the server with --exit-holdout."]
    notes = [f"Method: randomised holdout; intervals of {100 * data['level']:.0f} %."]
    if any(figures["saved_per_request"] is None for figures in data["data"]):
        notes.append(f"Too early: each side needs conversations in {MIN_GROUPS} random groups.")
    return notes


class HoldoutCollector:
    """The figures of the holdout as gauges, computed when they are scraped."""

    def __init__(self, store: SumStore) -> None:
        self._store = store

    def describe(self) -> list[Metric]:
        """Nothing in advance: it would be computed twice."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Requests of both sides always, savings once there is an interval."""
        labels = ["model_name", "policy"]
        requests = GaugeMetricFamily(
            "stepgrpo_holdout_requests",
            "Sequences that take part in the comparison, by side.",
            labels=[*labels, "side"],
        )
        saved = GaugeMetricFamily(
            "stepgrpo_holdout_saved_tokens",
            "Tokens per sequence that exits save, as the holdout shows, and its 95 % interval.",
            labels=[*labels, "measure", "bound"],
        )
        for row in savings_rows(self._store.read()):
            requests.add_metric([row.model_name, row.policy, "exited"], row.exited)
            requests.add_metric([row.model_name, row.policy, "held"], row.held)
            for measure, found in (("gross", row.gross), ("net", row.net)):
                for bound, value in asdict(found.saved).items() if found else ():
                    saved.add_metric([row.model_name, row.policy, measure, bound], value)
        yield requests
        yield saved
