"""Prometheus metrics of early exit, beside the engine's ``vllm:`` metrics."""

import asyncio
import functools
from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter

from service.clients.judge import Judgment
from service.records.log_line import durations
from service.records.metric_table import counter, gauge, histogram
from service.records.reasons import Abstained
from service.records.sequence import SequenceRecord

__all__ = ["Metrics"]


class Metrics:
    """Updates counters as events happen; `metric_table` describes them."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._started = counter("requests_started_total", registry)
        self._requests = counter("requests_total", registry)
        self._exits = counter("exits_total", registry)
        self._completion = counter("completion_tokens_total", registry)
        self._reasoning = counter("reasoning_tokens_total", registry)
        self._injected = counter("injected_tokens_total", registry)
        self._probe = counter("probe_tokens_total", registry)
        self._discarded = counter("discarded_tokens_total", registry)
        self._aborted = counter("aborted_tokens_total", registry)
        self._saved = counter("saved_tokens_total", registry)
        self._overspent = counter("overspent_tokens_total", registry)
        self._saved_each = histogram("request_saved_tokens", registry)
        self._steps = histogram("reasoning_steps", registry)
        self._reasoning_each = histogram("request_reasoning_tokens", registry)
        self._answer_each = histogram("request_answer_tokens", registry)
        self._seconds = {
            "thinking": histogram("thinking_seconds", registry),
            "first_answer_token": histogram("time_to_first_answer_token_seconds", registry),
            "answer": histogram("answer_seconds", registry),
        }
        self._unmarked = counter("thoughts_without_marker_total", registry)
        self._abstained = counter("abstained_total", registry)
        self._policy_errors = counter("policy_errors_total", registry)
        self._failed_probes = counter("probes_failed_total", registry)
        self._refused = counter("probes_refused_total", registry)
        self._judge_requests = counter("judge_requests_total", registry)
        self._judge_tokens = counter("judge_tokens_total", registry)
        self._pairs = counter("pairs_total", registry)
        self._pair_tokens = counter("pair_tokens_total", registry)
        self._log_dropped = counter("log_lines_dropped_total", registry)
        self._busy = counter("engine_busy_seconds_total", registry)
        self._tasks = gauge("tasks", registry)

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Report the number of tasks in the event loop; it is constant while the server is idle."""
        self._tasks.set_function(lambda: len(asyncio.all_tasks(loop)))

    def started(self, record: SequenceRecord) -> None:
        """Count a sequence that starts."""
        labels = (record.model_name, record.label)
        _series(self._started, *labels).inc()
        if record.abstained is not None:
            self._abstained.labels(*labels, str(record.abstained)).inc()

    def judged(self, judgment: Judgment) -> None:
        """Count a request to the judge behind a URL."""
        self._judge_requests.labels(judgment.outcome).inc()
        self._judge_tokens.labels("prompt").inc(judgment.prompt_tokens)
        self._judge_tokens.labels("completion").inc(judgment.completion_tokens)

    def busy(self, seconds: float) -> None:
        """Count seconds in which the engine had requests to run."""
        self._busy.inc(seconds)

    def log_dropped(self, lines: int) -> None:
        """Count lost lines of the request log; callable from any thread."""
        self._log_dropped.inc(lines)

    def paired(self, model_name: str, policy: str, outcome: str) -> None:
        """Count a paired continuation."""
        self._pairs.labels(model_name, policy, outcome).inc()

    def ran_pairs(self, tokens: int) -> None:
        """Count tokens of paired continuations."""
        self._pair_tokens.inc(tokens)

    def proved(self, model_name: str, policy: str) -> None:
        """Count the token that is generated at startup as a probe token."""
        self._probe.labels(model_name, policy).inc()

    def ended(self, record: SequenceRecord) -> None:
        """Count a sequence that ended, however it ended."""
        labels, exemplar = (record.model_name, record.label), trace_exemplar(record)
        add = _adder(labels, exemplar)
        add(self._requests, 1, str(record.status))
        add(self._completion, record.delivered_tokens)
        add(self._injected, record.injected_tokens)
        add(self._probe, record.probe_tokens)
        add(self._discarded, record.discarded_tokens)
        add(self._aborted, record.aborted_tokens)
        add(self._policy_errors, record.abstained is Abstained.POLICY_ERROR)
        for cause, count in record.refused_probes.items():
            add(self._refused, count, str(cause))
        if (outcome := record.outcome) is not None:
            add(self._exits, 1, str(outcome.reason))
            add(self._reasoning, outcome.reasoning_tokens)
            add(self._failed_probes, outcome.failed_probes)
            add(self._unmarked, record.lacks_markers)
            self._steps.labels(*labels).observe(outcome.steps, exemplar)
            by_reason = (*labels, str(outcome.reason))
            self._reasoning_each.labels(*by_reason).observe(outcome.reasoning_tokens, exemplar)
            self._answer_each.labels(*by_reason).observe(record.answer_tokens, exemplar)
            found = durations(record, record.timeline) if record.status == "completed" else {}
            for name, times in self._seconds.items():
                if (seconds := found.get(name)) is not None:
                    times.labels(*by_reason).observe(seconds, exemplar)
        if (saved := record.saved) is not None:
            add(self._saved, max(saved.tokens, 0), saved.method)
            add(self._overspent, max(-saved.tokens, 0), saved.method)
            # A histogram's sum must not decrease: a negative saving is counted as 0.
            self._saved_each.labels(*labels, saved.method).observe(max(saved.tokens, 0), exemplar)


def trace_exemplar(record: SequenceRecord) -> dict[str, str] | None:
    """Return the exemplar that links a sample to a trace (OpenMetrics); None without a trace."""
    trace = record.timeline.trace_id
    return None if trace is None else {"trace_id": trace}


Add = Callable[..., None]


def _adder(labels: tuple[str, str], exemplar: dict[str, str] | None) -> Add:
    def add(to: Counter, amount: float, *more: str) -> None:
        series = _series(to, *labels, *more)  # creates the series, even for an amount of 0
        if amount:
            series.inc(amount, exemplar)

    return add


@functools.lru_cache(maxsize=4096)
def _series(of: Counter, *labels: str) -> Counter:
    """Return ``of.labels(*labels)``, cached because the lookup is slow and frequent."""
    return of.labels(*labels)
