"""The parts of a dashboard's panel, and common queries."""

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "BY_POLICY",
    "ENGINE",
    "OURS",
    "Board",
    "Panel",
    "Query",
    "gained",
    "latencies",
    "of_state",
    "per_request",
    "quantile",
    "rate",
    "tokens",
]


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and the legend of its series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart or a number of a dashboard."""

    title: str
    unit: str
    description: str
    queries: tuple[Query, ...]
    kind: Literal["stat", "series"] = "series"


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard of several panels."""

    uid: str
    title: str
    description: str
    panels: tuple[Panel, ...]


BY_POLICY = "{{model_name}} · {{policy}}"
OURS = 'model_name=~"$model", policy=~"$policy"'
ENGINE = 'model_name=~"$model"'


def rate(name: str, by: str = "model_name, policy", where: str = OURS) -> str:
    """Return a query for a counter's rate per second, summed."""
    return f"sum by ({by}) (rate({name}{{{where}}}[$__rate_interval]))"


def gained(name: str) -> str:
    """Return a query for a counter's increase over the time range shown."""
    return f"(sum(increase({name}{{{OURS}}}[$__range])) or vector(0))"


def quantile(share: float, name: str, by: str, where: str = OURS) -> str:
    """Return a query for a quantile of a histogram."""
    inner = f"sum by (le, {by}) (rate({name}_bucket{{{where}}}[$__rate_interval]))"
    return f"histogram_quantile({share}, {inner})"


def of_state(name: str, more: tuple[str, ...], across: Literal["sum", "avg"]) -> Query:
    """Return a query for a gauge of the state file, by model, policy and `more`. All servers that
    share a file report the same value: each file counts once; several are summed or averaged.
    """
    by = ", ".join(("model_name", "policy", *more))
    mine = f"{name}{{{OURS}}} * on (instance) group_left (state) stepgrpo_state_info"
    legend = " · ".join((BY_POLICY, *(f"{{{{{each}}}}}" for each in more)))
    return Query(f"{across} by ({by}) (max by ({by}, state) ({mine}))", legend)


def tokens(title: str, name: str, description: str) -> Panel:
    """Return a panel of a token counter, per second."""
    queries = (Query(rate(f"stepgrpo_{name}_tokens_total"), BY_POLICY),)
    return Panel(title, "short", f"Tokens per second {description}", queries)


def latencies(title: str, name: str, description: str) -> Panel:
    """Return a panel with median and 99 % quantile of a histogram of the engine."""
    queries = tuple(
        Query(quantile(share, name, "model_name", ENGINE), f"{{{{model_name}}}} · {share:.0%}")
        for share in (0.5, 0.99)
    )
    return Panel(title, "s", description, queries)


def per_request(title: str, name: str, description: str, unit: str = "short") -> Panel:
    """Return a panel with median and 90 % quantile of a histogram of this server."""
    queries = tuple(
        Query(quantile(share, name, "model_name, policy"), f"{BY_POLICY} · {share:.0%}")
        for share in (0.5, 0.9)
    )
    return Panel(title, unit, description, queries)
