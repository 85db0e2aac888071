"""Table of every metric of the server; `docs/reference.md` is generated from it.

Labels are bounded, so the number of series is too: served models, registered policies, and closed
sets.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

__all__ = ["METRICS", "Metric", "counter", "family", "gauge", "histogram"]

Kind = Literal["counter", "gauge", "histogram"]

_POLICY = ("model_name", "policy")
_TOKENS = (0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)
_STEPS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)


@dataclass(frozen=True, slots=True)
class Metric:
    """Definition of one metric."""

    kind: Kind
    name: str
    unit: str
    help: str
    labels: tuple[str, ...] = _POLICY
    buckets: tuple[float, ...] = ()


def _by_policy(kind: Kind, name: str, unit: str, text: str, *more: str) -> Metric:
    return Metric(kind, f"stepgrpo_{name}", unit, text, (*_POLICY, *more))


_ALL = (
    _by_policy(
        "counter", "requests_started_total", "sequences",
        "Sequences admitted; n=2 counts two.",
    ),
    _by_policy(
        "counter", "requests_total", "sequences",
        "Sequences that ended, by outcome.", "outcome",
    ),
    _by_policy(
        "counter", "exits_total", "sequences",
        "Sequences by the reason why their thinking ended.", "exit_reason",
    ),
    _by_policy(
        "counter", "completion_tokens_total", "tokens", "Tokens delivered, forced tokens included."
    ),
    _by_policy(
        "counter", "reasoning_tokens_total", "tokens",
        "Tokens between <think> and </think>.",
    ),
    _by_policy(
        "counter", "injected_tokens_total", "tokens",
        "Forced tokens that exits injected to close the thinking.",
    ),
    _by_policy(
        "counter", "probe_tokens_total", "tokens",
        "Tokens generated for probes, and one at startup.",
    ),
    _by_policy("counter", "discarded_tokens_total", "tokens", "Tokens generated after an exit."),
    _by_policy(
        "counter", "aborted_tokens_total", "tokens",
        "Tokens generated after the client had disconnected.",
    ),
    _by_policy(
        "counter", "saved_tokens_total", "tokens",
        "Estimated tokens saved by exits, before probe cost.",
        "method",
    ),
    _by_policy(
        "counter", "overspent_tokens_total", "tokens",
        "Estimated tokens by which exits cost more than they saved.",
        "method",
    ),
    Metric(
        "histogram", "stepgrpo_request_saved_tokens", "tokens",
        "Estimated tokens saved per sequence; 0 if an exit cost more than it saved.",
        (*_POLICY, "method"), _TOKENS,
    ),
    Metric(
        "histogram", "stepgrpo_reasoning_steps", "steps",
        "Reasoning steps per sequence.", buckets=_STEPS
    ),
    Metric(
        "histogram", "stepgrpo_request_reasoning_tokens", "tokens",
        "Reasoning tokens per sequence, by the reason why its thinking ended.",
        (*_POLICY, "exit_reason"), _TOKENS,
    ),
    Metric(
        "histogram", "stepgrpo_request_answer_tokens", "tokens",
        "Delivered tokens per sequence that are not reasoning: the answer, and the forced tokens "
        "before it.",
        (*_POLICY, "exit_reason"), _TOKENS,
    ),
    Metric(
        "histogram", "stepgrpo_thinking_seconds", "seconds",
        "Time from the first token to the end of the thinking, per sequence.",
        (*_POLICY, "exit_reason"), _SECONDS,
    ),
    Metric(
        "histogram", "stepgrpo_time_to_first_answer_token_seconds", "seconds",
        "Time from the arrival of the request to the first token of the answer, per sequence.",
        (*_POLICY, "exit_reason"), _SECONDS,
    ),
    Metric(
        "histogram", "stepgrpo_answer_seconds", "seconds",
        "Time from the end of the thinking to the end of the sequence. Responses under policy "
        "`none` that are not streamed come in one piece and are in none of these three.",
        (*_POLICY, "exit_reason"), _SECONDS,
    ),
    _by_policy(
        "counter", "thoughts_without_marker_total", "sequences",
        "Sequences with 1 000 reasoning tokens or more and no step marker: see --exit-markers.",
    ),
    _by_policy(
        "counter", "abstained_total", "sequences",
        "Sequences in which a policy did not act, or only in part.",
        "cause",
    ),
    _by_policy(
        "counter", "policy_errors_total", "sequences",
        "Sequences whose policy failed; they continued without exits.",
    ),
    _by_policy(
        "counter", "probes_failed_total", "probes",
        "Probes that failed or whose answer could not be parsed.",
    ),
    _by_policy(
        "counter", "probes_refused_total", "probes",
        "Probes not sent, to limit the load of the engine.", "cause"
    ),
    Metric(
        "counter", "stepgrpo_judge_requests_total", "requests",
        "Requests to the judge behind a URL, by outcome.", ("outcome",),
    ),
    Metric(
        "counter", "stepgrpo_judge_tokens_total", "tokens",
        "Tokens of the judge behind a URL, as it reports them.", ("kind",),
    ),
    _by_policy("counter", "pairs_total", "runs", "Paired continuations, by outcome.", "outcome"),
    Metric(
        "counter", "stepgrpo_pair_tokens_total", "tokens",
        "Tokens generated by this engine for paired continuations.", (),
    ),
    _by_policy(
        "gauge", "holdout_requests", "sequences", "Sequences in the holdout experiment, by arm.",
        "source", "side",
    ),
    _by_policy(
        "gauge", "holdout_saved_tokens", "tokens",
        "Tokens saved per sequence, measured by the holdout, with a 95 % interval.",
        "source", "measure", "bound",
    ),
    _by_policy(
        "gauge", "measured_saved_tokens", "tokens",
        "Tokens saved in total, measured by pairs, with a 95 % interval.", "source", "measure",
        "bound",
    ),
    _by_policy(
        "gauge", "agreement_ratio", "ratio",
        "Share of judged pairs with an unchanged answer, with a 95 % interval.", "source", "bound",
    ),
    _by_policy(
        "gauge", "prediction_coverage_ratio", "ratio",
        "Share of measured lengths inside the predicted 90 % interval; 95 % interval.", "bound",
    ),
    _by_policy(
        "gauge", "prediction_stale", "0 or 1", "1 if intervals cover too few or too many lengths."
    ),
    Metric(
        "gauge", "stepgrpo_state_info", "1",
        "Identifies the state file behind the gauges above; equal on servers that share it.",
        ("state",),
    ),
    Metric(
        "gauge", "stepgrpo_state_unavailable", "0 or 1",
        "1 if the state file cannot be read or written, or is damaged: sums wait in memory.", (),
    ),
    _by_policy(
        "gauge", "policy_switched_off", "0 or 1",
        "1 if the quality gate has switched the policy off.",
    ),
    _by_policy(
        "gauge", "guarantee_wealth", "ratio",
        "Evidence that exits break the guarantee of --exit-thresholds: 1 is none, 20 ends them.",
    ),
    Metric(
        "counter", "stepgrpo_log_lines_dropped_total", "lines",
        "Lines of the request log that could not be written.", (),
    ),
    Metric(
        "counter", "stepgrpo_engine_busy_seconds_total", "seconds",
        "Seconds in which the engine had requests to run.", (),
    ),
    Metric("gauge", "stepgrpo_tasks", "tasks", "Tasks in the event loop.", ()),
    Metric(
        "counter", "stepgrpo_refusals_total", "requests",
        "Requests refused before their body was read, by cause.", ("cause",),
    ),
    Metric("gauge", "stepgrpo_api_keys", "keys", "API keys in force.", ()),
    Metric(
        "counter", "stepgrpo_api_key_reloads_total", "changes",
        "Changes of the API key file, by result.", ("to",),
    ),
)  # fmt: skip
METRICS = {each.name: each for each in _ALL}
"""Definitions by name."""


def _find(kind: Kind, name: str) -> Metric:
    found = METRICS[f"stepgrpo_{name}"]
    assert found.kind == kind
    return found


Made = TypeVar("Made", Counter, Gauge, Histogram)


def counter(name: str, registry: CollectorRegistry) -> Counter:
    """Register and return the counter with this name, without prefix."""
    metric = _find("counter", name)
    return _registered(Counter(metric.name, metric.help, metric.labels, registry=None), registry)


def gauge(name: str, registry: CollectorRegistry) -> Gauge:
    """Register and return the gauge with this name, without prefix."""
    metric = _find("gauge", name)
    return _registered(Gauge(metric.name, metric.help, metric.labels, registry=None), registry)


def histogram(name: str, registry: CollectorRegistry) -> Histogram:
    """Register and return the histogram with this name, without prefix."""
    metric = _find("histogram", name)
    buckets: Sequence[float] = metric.buckets
    made = Histogram(metric.name, metric.help, metric.labels, registry=None, buckets=buckets)
    return _registered(made, registry)


def _registered(made: Made, registry: CollectorRegistry) -> Made:
    registry.register(_WithoutCreated(made))
    return made


class _WithoutCreated:
    """Collector that hides the ``_created`` samples, which double the series for little use."""

    def __init__(self, made: Counter | Gauge | Histogram) -> None:
        self._made = made

    def describe(self) -> Iterable[Family]:
        return self._made.describe()

    def collect(self) -> Iterable[Family]:
        for family in self._made.collect():
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family


def family(name: str) -> GaugeMetricFamily:
    """Return the gauge with this name for one scrape."""
    metric = _find("gauge", name)
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
