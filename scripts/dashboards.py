"""Grafana dashboards as code: `make docs` writes them into deploy/grafana/dashboards.

A panel is a row of the tables below: title, unit, description and queries. A test executes every
query against a real Prometheus that has scraped a real server.
"""

from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from scripts.panels import (
    BY_POLICY,
    ENGINE,
    OURS,
    Board,
    Panel,
    Query,
    gained,
    latencies,
    of_state,
    per_request,
    rate,
    tokens,
)

__all__ = ["BOARDS", "SAVINGS", "Board", "Panel", "Query", "dashboards"]

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")


NET = (
    f"{gained('stepgrpo_saved_tokens_total')} - {gained('stepgrpo_overspent_tokens_total')}"
    f" - {gained('stepgrpo_probe_tokens_total')} - {gained('stepgrpo_discarded_tokens_total')}"
)
GROSS = f"{gained('stepgrpo_saved_tokens_total')} - {gained('stepgrpo_overspent_tokens_total')}"

SAVINGS = Board(
    "stepgrpo-savings",
    "Token savings",
    "What early exits save, and what they cost.",
    (
        Panel(
            "Saved, net",
            "short",
            "Tokens saved over the time shown, less trial answers and tokens past an exit. "
            "Predicted from the calibration: an estimate, not a measurement.",
            (Query(NET),),
            kind="stat",
        ),
        Panel(
            "Saved, gross",
            "short",
            "Tokens that clients would have received more without exits, as predicted.",
            (Query(GROSS),),
            kind="stat",
        ),
        Panel(
            "Saved in 30 days, net",
            "short",
            "The same over the last 30 days, as far back as Prometheus remembers.",
            (Query(NET.replace("$__range", "30d")),),
            kind="stat",
        ),
        Panel(
            "Worth",
            "currencyUSD",
            "Net savings at the price per million tokens chosen above.",
            (Query(f"({NET}) * $price / 1e6"),),
            kind="stat",
        ),
        Panel(
            "Engine seconds saved",
            "s",
            "Net savings at what a generated token took the engine on average over the time shown. "
            "Another batch would take another time: an estimate.",
            (
                Query(
                    f"({NET}) * sum(increase(stepgrpo_engine_busy_seconds_total[$__range]))"
                    f" / sum(increase(vllm:generation_tokens_total{{{ENGINE}}}[$__range]))"
                ),
            ),
            kind="stat",
        ),
        Panel(
            "Compression",
            "percentunit",
            "Tokens delivered over tokens that would have been without exits; 0.6 is 40 % saved.",
            (
                Query(
                    f"{gained('stepgrpo_completion_tokens_total')} / "
                    f"({gained('stepgrpo_completion_tokens_total')} + {GROSS})"
                ),
            ),
            kind="stat",
        ),
        Panel(
            "Saved per second, net",
            "short",
            "Where the line is below zero, the policy costs more than it saves.",
            (
                Query(
                    f"{rate('stepgrpo_saved_tokens_total')}"
                    f" - {rate('stepgrpo_overspent_tokens_total')}"
                    f" - {rate('stepgrpo_probe_tokens_total')}"
                    f" - {rate('stepgrpo_discarded_tokens_total')}",
                    BY_POLICY,
                ),
            ),
        ),
        Panel(
            "Why thinking ended",
            "reqps",
            "natural: by itself; eos_in_thinking and client: closed, but by no policy.",
            (
                Query(
                    rate("stepgrpo_exits_total", "model_name, policy, exit_reason"),
                    BY_POLICY + " · {{exit_reason}}",
                ),
            ),
        ),
        Panel(
            "Reasoning tokens per request",
            "short",
            "With and without an exit policy, as far as both are served.",
            (
                Query(
                    f"{rate('stepgrpo_reasoning_tokens_total')}"
                    f" / {rate('stepgrpo_reasoning_steps_count')}",
                    BY_POLICY,
                ),
            ),
        ),
        Panel(
            "Holdout: saved per request",
            "short",
            "Tokens saved per request, measured: conversations as they are served against those "
            "held out (--exit-holdout), with a 95 % interval; exit: by exits from outside, "
            "training: by the model's training (--exit-holdout-base), or by both together.",
            (of_state("stepgrpo_holdout_saved_tokens", ("source", "measure", "bound"), "avg"),),
        ),
        Panel(
            "Paired: saved in all",
            "short",
            "Tokens saved since the sums began, as paired runs show (--exit-pairs), with a 95 % "
            "interval; exit: by exits from outside, training: by the model's training.",
            (of_state("stepgrpo_measured_saved_tokens", ("source", "measure", "bound"), "sum"),),
        ),
        Panel(
            "Paired: same answer",
            "percentunit",
            "Share of judged pairs in which the answer stayed as it was, with a 95 % interval. The "
            "guard (--exit-agreement) switches a policy off by the newest of them.",
            (of_state("stepgrpo_agreement_ratio", ("source", "bound"), "avg"),),
        ),
        Panel(
            "Paired: predictions that held",
            "percentunit",
            "Share of measured lengths inside their predicted interval of 90 %, with a 95 % "
            "interval. Far from 0.9 the calibration is of another time.",
            (of_state("stepgrpo_prediction_coverage_ratio", ("bound",), "avg"),),
        ),
        Panel(
            "Paired: runs",
            "ops",
            "dropped: too many waited for an idle moment; failed: the log says why.",
            (
                Query(
                    rate("stepgrpo_pairs_total", "model_name, policy, outcome"),
                    BY_POLICY + " · {{outcome}}",
                ),
            ),
        ),
        per_request(
            "Length of the reasoning",
            "stepgrpo_request_reasoning_tokens",
            "Median and 90 % quantile of the reasoning tokens of a request.",
        ),
        per_request(
            "Length of the answer",
            "stepgrpo_request_answer_tokens",
            "Median and 90 % quantile of the tokens of a request that are not reasoning.",
        ),
        per_request(
            "Steps per request",
            "stepgrpo_reasoning_steps",
            "Median and 90 % quantile of the steps of reasoning.",
        ),
        per_request(
            "Saved per request",
            "stepgrpo_request_saved_tokens",
            "Median and 90 % quantile of the predicted tokens saved by a request.",
        ),
        Panel(
            "Cost of exits",
            "short",
            "Tokens per second of trial answers, past an exit, and injected to close the thinking.",
            tuple(
                Query(rate(f"stepgrpo_{name}_tokens_total"), f"{BY_POLICY} · {name}")
                for name in ("probe", "discarded", "injected")
            ),
        ),
        Panel(
            "Trial answers that failed or were not asked for",
            "ops",
            "failed: the server's log says why. refused: the engine was busy (--exit-probe-load).",
            (
                Query(rate("stepgrpo_probes_failed_total"), f"{BY_POLICY} · failed"),
                Query(f"{rate('stepgrpo_probes_refused_total', 'cause')} or vector(0)", "refused"),
            ),
        ),
    ),
)

SERVING = Board(
    "stepgrpo-serving",
    "Serving",
    "Requests, their outcomes, and the engine below them.",
    (
        Panel(
            "Requests that ended",
            "reqps",
            "By outcome; aborted: the client left.",
            (
                Query(
                    rate("stepgrpo_requests_total", "model_name, outcome"),
                    "{{model_name}} · {{outcome}}",
                ),
            ),
        ),
        Panel(
            "Open requests",
            "short",
            "Admitted and not ended yet.",
            (
                Query(
                    f"sum by (model_name) (stepgrpo_requests_started_total{{{OURS}}})"
                    f" - sum by (model_name) (stepgrpo_requests_total{{{OURS}}})",
                    "{{model_name}}",
                ),
            ),
        ),
        tokens("Delivered tokens", "completion", "that clients received."),
        tokens("Aborted tokens", "aborted", "generated for clients that had left."),
        per_request(
            "Time to first answer token",
            "stepgrpo_time_to_first_answer_token_seconds",
            "What users wait for: median and 90 % quantile from the arrival of a request to the "
            "first token of its answer.",
            "s",
        ),
        per_request(
            "Thinking time",
            "stepgrpo_thinking_seconds",
            "Median and 90 % quantile from the first token to the end of the thinking.",
            "s",
        ),
        per_request(
            "Answer time",
            "stepgrpo_answer_seconds",
            "Median and 90 % quantile from the end of the thinking to the end of the request.",
            "s",
        ),
        latencies(
            "Time to first token",
            "vllm:time_to_first_token_seconds",
            "Of the engine's requests: one of a user that exits is two, and each trial answer is "
            "one more.",
        ),
        latencies(
            "Inter-token latency",
            "vllm:inter_token_latency_seconds",
            "Of the engine's requests, trial answers and paired runs among them.",
        ),
        latencies(
            "Latency",
            "vllm:e2e_request_latency_seconds",
            "Of the engine's requests that ended, from arrival to end. Of a user's request that "
            "exits it is the answer alone, for its reasoning is aborted, and each trial answer is "
            "one more: shorter than what users wait for.",
        ),
        Panel(
            "Engine",
            "short",
            "Requests of the engine that run and that wait, trial answers and paired runs among "
            "them; waiting for long means overload.",
            tuple(
                Query(
                    f"sum by (model_name) (vllm:num_requests_{state}{{{ENGINE}}})",
                    f"{{{{model_name}}}} · {state}",
                )
                for state in ("running", "waiting")
            ),
        ),
        Panel(
            "KV cache",
            "percentunit",
            "Share of the cache in use; at 1 requests are preempted.",
            (
                Query(
                    f"max by (model_name) (vllm:kv_cache_usage_perc{{{ENGINE}}})", "{{model_name}}"
                ),
            ),
        ),
        Panel(
            "Prefix cache hits",
            "percentunit",
            "Share of prompt tokens found in the cache, of the engine's requests; trial answers "
            "are cheap where it is high, and make it higher.",
            (
                Query(
                    f"{rate('vllm:prefix_cache_hits_total', 'model_name', ENGINE)}"
                    f" / {rate('vllm:prefix_cache_queries_total', 'model_name', ENGINE)}",
                    "{{model_name}}",
                ),
            ),
        ),
    ),
)

BOARDS = (SAVINGS, SERVING)


def dashboards() -> dict[Path, str]:
    """Return the content of each file."""
    return {FOLDER / f"{board.uid}.json": _json(board) for board in BOARDS}


def _json(board: Board) -> str:
    builder = (
        grafana.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["stepgrpo"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(
            _choice("model", "Model", "label_values(stepgrpo_requests_total, model_name)")
        )
        .with_variable(_choice("policy", "Policy", "label_values(stepgrpo_requests_total, policy)"))
        .with_variable(
            grafana.TextBoxVariable("price").label("Price per million tokens").default_value("0.6")
        )
    )
    for panel in board.panels:
        builder = builder.with_panel(_stat(panel) if panel.kind == "stat" else _series(panel))
    return JSONEncoder(sort_keys=True, indent=1).encode(builder.build()) + "\n"


def _choice(name: str, title: str, label: str) -> grafana.QueryVariable:
    return (
        grafana.QueryVariable(name)
        .label(title)
        .datasource(SOURCE)
        .query(f"label_values(stepgrpo_requests_total, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def _stat(panel: Panel) -> stat.Panel:
    made = (
        stat.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(SOURCE)
        .span(4)
        .height(4)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    )
    for target in _targets(panel.queries):
        made = made.with_target(target.instant())
    return made


def _series(panel: Panel) -> timeseries.Panel:
    legend = (
        VizLegendOptions()
        .show_legend(True)
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
    )
    made = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(SOURCE)
        .span(12)
        .height(8)
        .legend(legend)
    )
    for target in _targets(panel.queries):
        made = made.with_target(target)
    return made


def _targets(queries: Sequence[Query]) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(65 + place))
        for place, query in enumerate(queries)
    ]
