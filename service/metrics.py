"""Prometheus metrics of early exit, beside the engine's own ``vllm:`` names.

Labels are bounded: served models, the registered policies, closed sets of reasons and methods.
"""

import asyncio
from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric

from service.eligibility import Abstained
from service.judges import Judgement
from service.ledger import SequenceRecord

__all__ = ["Metrics"]

_BY_POLICY = ("model_name", "policy")
_TOKEN_BUCKETS = (0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_STEP_BUCKETS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)


class Metrics:
    """All ``stepgrpo_*`` collectors."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        # The counter stepgrpo_saved_tokens_total and the histogram stepgrpo_saved_tokens would
        # claim the same name in one registry, although their samples differ.
        counters, histograms = CollectorRegistry(), CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"stepgrpo_{name}", text, (*_BY_POLICY, *labels), registry=counters)

        def histogram(name: str, text: str, buckets: tuple[int, ...], *labels: str) -> Histogram:
            return Histogram(
                f"stepgrpo_{name}",
                text,
                (*_BY_POLICY, *labels),
                registry=histograms,
                buckets=buckets,
            )

        self._started = counter("requests_started_total", "Requests admitted; n=2 counts two.")
        self._requests = counter(
            "requests_total", "Requests that ended, by how; n=2 counts two.", "outcome"
        )
        self._exits = counter("exits_total", "Why the thinking ended.", "exit_reason")
        self._completion = counter(
            "completion_tokens_total", "Tokens delivered, injected closings included."
        )
        self._reasoning = counter("reasoning_tokens_total", "Tokens between <think> and </think>.")
        self._injected = counter("injected_tokens_total", "Closing tokens put in by an exit.")
        self._probe = counter(
            "probe_tokens_total", "Tokens generated for trial answers, and one at start."
        )
        self._abstained = counter(
            "abstained_total", "Sequences in which a policy did not act, or not all of it.", "cause"
        )
        self._policy_errors = counter(
            "policy_errors_total", "Sequences whose policy failed, and that ran on without exits."
        )
        self._failed_probes = counter(
            "probes_failed_total", "Trial answers that failed or could not be read."
        )
        self._refused = counter(
            "probes_refused_total", "Trial answers not asked for, to spare the engine.", "cause"
        )
        # Of the server, whose policy may differ by request.
        self._judge_requests = Counter(
            "stepgrpo_judge_requests_total",
            "Questions to the judge behind a URL, by what became of them.",
            ("outcome",),
            registry=counters,
        )
        self._judge_tokens = Counter(
            "stepgrpo_judge_tokens_total",
            "Tokens of the judge behind a URL, as it counts them.",
            ("kind",),
            registry=counters,
        )
        self._pairs = counter("pairs_total", "Paired runs, by what became of them.", "outcome")
        self._pair_tokens = Counter(
            "stepgrpo_pair_tokens_total",
            "Tokens that this engine generated for paired runs.",
            registry=counters,
        )
        self._discarded = counter("discarded_tokens_total", "Tokens generated past an exit.")
        self._aborted = counter(
            "aborted_tokens_total", "Tokens generated for clients that had left."
        )
        self._saved = counter(
            "saved_tokens_total", "Estimated tokens saved by exits, gross of probes.", "method"
        )
        self._overspent = counter(
            "overspent_tokens_total", "Estimated tokens by which exits cost more.", "method"
        )
        self._steps = histogram("reasoning_steps", "Steps per sequence.", _STEP_BUCKETS)
        self._saved_each = histogram(
            "saved_tokens", "Estimated tokens saved per sequence.", _TOKEN_BUCKETS, "method"
        )
        self._log_dropped = Counter(
            "stepgrpo_log_lines_dropped_total",
            "Lines of the request log that could not be written.",
            registry=counters,
        )
        self._tasks = Gauge("stepgrpo_tasks", "Tasks of the event loop.", registry=counters)
        registry.register(_Joined(counters, histograms))

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Show how many tasks the loop has: as many as before, when nothing runs."""
        self._tasks.set_function(lambda: len(asyncio.all_tasks(loop)))

    def started(self, record: SequenceRecord) -> None:
        """Count a sequence in."""
        labels = (record.model_name, record.label)
        self._started.labels(*labels).inc()
        if record.abstained is not None:
            self._abstained.labels(*labels, str(record.abstained)).inc()

    def judged(self, judgement: Judgement) -> None:
        """Count a question to the judge behind a URL."""
        self._judge_requests.labels(judgement.outcome).inc()
        self._judge_tokens.labels("prompt").inc(judgement.prompt_tokens)
        self._judge_tokens.labels("completion").inc(judgement.completion_tokens)

    def log_dropped(self, lines: int) -> None:
        """Count lines of the request log that are lost; called in any thread."""
        self._log_dropped.inc(lines)

    def paired(self, model_name: str, policy: str, outcome: str) -> None:
        """Count a paired run."""
        self._pairs.labels(model_name, policy, outcome).inc()

    def ran_pairs(self, tokens: int) -> None:
        """Count tokens of paired runs."""
        self._pair_tokens.inc(tokens)

    def proved(self, model_name: str, policy: str) -> None:
        """Count the token that is generated at start: a trial, and nobody's completion."""
        self._probe.labels(model_name, policy).inc()

    def ended(self, record: SequenceRecord) -> None:
        """Count a sequence out, whatever became of it."""
        labels = (record.model_name, record.label)
        self._requests.labels(*labels, record.status).inc()
        self._completion.labels(*labels).inc(record.delivered_tokens)
        self._injected.labels(*labels).inc(record.injected_tokens)
        self._probe.labels(*labels).inc(record.probe_tokens)
        self._discarded.labels(*labels).inc(record.discarded_tokens)
        self._aborted.labels(*labels).inc(record.aborted_tokens)
        self._policy_errors.labels(*labels).inc(record.abstained is Abstained.POLICY_ERROR)
        for cause, count in record.refused_probes.items():
            self._refused.labels(*labels, str(cause)).inc(count)
        if record.outcome is not None:
            self._exits.labels(*labels, str(record.outcome.reason)).inc()
            self._reasoning.labels(*labels).inc(record.outcome.reasoning_tokens)
            self._failed_probes.labels(*labels).inc(record.outcome.failed_probes)
            self._steps.labels(*labels).observe(record.outcome.steps)
        if record.saved is not None:
            by_method = (*labels, record.saved.method)
            self._saved.labels(*by_method).inc(max(record.saved.tokens, 0))
            self._overspent.labels(*by_method).inc(max(-record.saved.tokens, 0))
            self._saved_each.labels(*by_method).observe(record.saved.tokens)


class _Joined:
    """Presents several registries as one collector, without the creation times.

    Those say little, and the two metrics of the same stem would both bring one.
    """

    def __init__(self, *registries: CollectorRegistry) -> None:
        self._registries = registries

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        for registry in self._registries:
            for family in registry.collect():
                family.samples = [s for s in family.samples if not s.name.endswith("_created")]
                yield family
