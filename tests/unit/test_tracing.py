"""The spans of a request, as the OpenTelemetry SDK exports them."""

from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from vllm.sampling_params import SamplingParams

from service.engine.observer import RequestObserver
from service.engine.request import EngineRequest
from service.records.metrics import Metrics
from service.records.reasons import Refusal
from service.records.sequence import Saved, SequenceRecord
from service.records.timeline import MAX_PROBES, Start, Timeline
from service.records.tracing import Tracing, tracing_from_config
from stepgrpo_core import ExitReason, Outcome

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=b"}
OUTCOME = Outcome(ExitReason.CONFIDENT, 2, 30, 2, 0, (0.2, 0.99), None)


class Traced:
    """A journal whose spans are kept here."""

    def __init__(self, **provider: Any) -> None:
        self.exporter = InMemorySpanExporter()
        made = TracerProvider(shutdown_on_exit=False, **provider)
        made.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.journal = RequestObserver(tracing=Tracing(made.get_tracer("test")))

    def begin(self, n: int = 1, **options: Any) -> tuple[EngineRequest, list[SequenceRecord]]:
        records = [SequenceRecord(index, "m", "confidence", 20) for index in range(n)]
        request = EngineRequest("chatcmpl-x", {"prompt_token_ids": [1]}, SamplingParams(), options)
        request = self.journal.begin(request, records, Start.at(0.0).moment)
        return request, records

    def spans(self) -> dict[str, list[ReadableSpan]]:
        found: dict[str, list[ReadableSpan]] = {}
        for span in self.exporter.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found


def timeline_of(record: SequenceRecord) -> Timeline:
    assert isinstance(record.timeline, Timeline)
    return record.timeline


def ids(headers: Any) -> tuple[str, str]:
    """Trace and span in the options that go with a stream."""
    _, trace, span, _ = headers["trace_headers"]["traceparent"].split("-")
    return trace, span


def test_an_exit_in_spans() -> None:
    traced = Traced()
    request, (record,) = traced.begin(trace_headers=HEADERS, priority=3)
    assert request.options["priority"] == 3
    assert request.options["trace_headers"]["tracestate"] == "a=b"
    timeline = timeline_of(record)
    timeline.received(SimpleNamespace(metrics=None))
    asked = [timeline.probe_started(number) for number in range(2)]
    timeline.probe_refused(0, Refusal.LOAD)
    timeline.probe_answered(1)
    timeline.truncated()
    answer = timeline.answer_started()
    record.outcome, record.status, record.finish_reason = OUTCOME, "completed", "stop"
    record.delivered_tokens, record.probe_tokens = 40, 12
    assert traced.spans() == {}, "all are sent at the end"
    traced.journal.end([record])

    spans = traced.spans()
    names = {"stepgrpo.request", "stepgrpo.thinking", "stepgrpo.probe", "stepgrpo.answer"}
    assert set(spans) == names
    (root,) = spans["stepgrpo.request"]
    assert ids(request.options) == (TRACE, f"{root.context.span_id:016x}")
    assert root.parent is not None
    assert f"{root.parent.span_id:016x}" == PARENT
    below = [span for name, found in spans.items() if name != "stepgrpo.request" for span in found]
    assert {span.parent.span_id for span in below if span.parent} == {root.context.span_id}
    assert {f"{span.context.trace_id:032x}" for span in below} == {TRACE}
    told = [f"{span.context.span_id:016x}" for span in spans["stepgrpo.probe"]]
    assert [ids(each)[1] for each in asked] == told
    assert ids(answer)[1] == f"{spans['stepgrpo.answer'][0].context.span_id:016x}"
    assert dict(root.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.choice.count": 1,
        "gen_ai.request.id": "chatcmpl-x",
        "gen_ai.request.model": "m",
        "gen_ai.request.n": 1,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.id": "chatcmpl-x",
        "gen_ai.response.model": "m",
        "gen_ai.usage.completion_tokens": 40,
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 40,
        "gen_ai.usage.prompt_tokens": 20,
        "gen_ai.usage.reasoning.output_tokens": 30,
        "stepgrpo.policy": "confidence",
        "stepgrpo.label": "confidence",
        "stepgrpo.exit_reason": "confident",
        "stepgrpo.reasoning_tokens": 30,
        "stepgrpo.probe_tokens": 12,
        "stepgrpo.discarded_tokens": 0,
    }
    assert dict(spans["stepgrpo.thinking"][0].attributes or {}) == {
        "stepgrpo.index": 0,
        "stepgrpo.exit_reason": "confident",
        "stepgrpo.steps": 2,
        "stepgrpo.reasoning_tokens": 30,
        "stepgrpo.probes": 2,
        "stepgrpo.confidence": 0.99,
    }
    refused, other = (dict(span.attributes or {}) for span in spans["stepgrpo.probe"])
    assert refused == {
        "stepgrpo.index": 0,
        "stepgrpo.probe": 0,
        "stepgrpo.result": "refused",
        "stepgrpo.cause": "load",
    }
    assert other["stepgrpo.result"] == "unused"
    assert root.status.status_code is StatusCode.UNSET


def test_spans_lie_where_the_moments_do() -> None:
    traced = Traced()
    _, (record,) = traced.begin()
    timeline = timeline_of(record)
    timeline.start = start = Start(100.0, 5_000_000_000)
    timeline.spans._request.start = start  # type: ignore[union-attr]
    timeline.first_token, timeline.thought, timeline.ended = 100.5, 101.0, 102.0
    record.outcome = OUTCOME
    traced.journal.end([record])
    spans = traced.spans()
    found = {name: (each.start_time, each.end_time) for name, (each,) in spans.items()}
    assert found["stepgrpo.thinking"] == (5_500_000_000, 6_000_000_000)
    assert found["stepgrpo.answer"] == (6_000_000_000, 7_000_000_000)
    assert found["stepgrpo.request"][1] == 7_000_000_000


def test_the_request_ends_with_the_last_of_its_sequences() -> None:
    traced = Traced()
    _, records = traced.begin(3)
    for record, reason in zip(records, ("natural", "confident", "natural"), strict=True):
        record.outcome = Outcome(ExitReason(reason), 1, 10, 0, 0, (), None)
        record.delivered_tokens = 20
    records[1].status = "failed"
    traced.journal.end(records)
    (request,) = traced.spans()["stepgrpo.request"]
    attributes = request.attributes or {}
    assert attributes["stepgrpo.exit_reason"] == ("natural", "confident", "natural")
    assert attributes["gen_ai.usage.completion_tokens"] == 60
    assert attributes["gen_ai.usage.output_tokens"] == 60
    assert attributes["gen_ai.usage.reasoning.output_tokens"] == 30
    assert attributes["gen_ai.request.choice.count"] == 3
    assert attributes["gen_ai.response.finish_reasons"] == ("error",) * 3
    assert attributes["stepgrpo.reasoning_tokens"] == 30
    assert request.status.status_code is StatusCode.ERROR


def test_one_that_never_began_has_its_request_alone() -> None:
    traced = Traced()
    _, (record,) = traced.begin()
    traced.journal.end([record])
    (request,) = traced.spans()["stepgrpo.request"]
    assert request.parent is None
    assert set(traced.spans()) == {"stepgrpo.request"}


def test_more_probes_than_are_remembered_end_as_well() -> None:
    traced = Traced()
    _, (record,) = traced.begin()
    for number in range(MAX_PROBES + 3):
        timeline_of(record).probe_started(number)
    traced.journal.end([record])
    assert len(traced.spans()["stepgrpo.probe"]) == MAX_PROBES + 3


@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_sampler_decides_for_all(flags: str) -> None:
    traced = Traced(**({"sampler": ALWAYS_OFF} if flags == "00" else {}))
    request, (record,) = traced.begin()
    sampled = int(request.options["trace_headers"]["traceparent"][-2:], 16) & 1
    assert sampled == int(flags)
    traced.journal.end([record])
    assert bool(traced.spans()) is (flags == "01")


def test_without_the_option_nothing_is_made() -> None:
    def config(endpoint: str | None) -> Any:
        return SimpleNamespace(observability_config=SimpleNamespace(otlp_traces_endpoint=endpoint))

    assert tracing_from_config(config(None)) is None
    assert isinstance(tracing_from_config(config("http://localhost:4317")), Tracing)
    record = SequenceRecord(0, "m", "confidence", 20)
    request = EngineRequest("x", {}, SamplingParams(), {})
    observer = RequestObserver(tracing=tracing_from_config(config(None)))
    assert observer.begin(request, [record], 0.0) is request
    assert record.timeline.spans is None


# Exemplars.


def scraped(record: SequenceRecord) -> tuple[str, dict[tuple[str, str | None], Any]]:
    """What a scrape says once this sequence has ended: as text, and exemplars by sample in the
    OpenMetrics format."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.started(record)
    metrics.ended(record)
    families = text_string_to_metric_families(openmetrics(registry).decode())
    found = {
        (each.name, each.labels.get("le")): each.exemplar
        for family in families
        for each in family.samples
        if each.exemplar is not None
    }
    return generate_latest(registry).decode(), found


def ended(traced: Traced) -> SequenceRecord:
    _, (record,) = traced.begin(trace_headers=HEADERS)
    record.outcome, record.status = OUTCOME, "completed"
    record.saved = Saved(-40, -60, 100, -52)
    record.delivered_tokens, record.generated_tokens, record.probe_tokens = 80, 80, 12
    return record


def test_what_is_counted_of_a_request_leads_to_its_trace() -> None:
    text, found = scraped(ended(Traced()))
    assert {name for name, _ in found} == {
        "stepgrpo_requests_total",
        "stepgrpo_exits_total",
        "stepgrpo_completion_tokens_total",
        "stepgrpo_reasoning_tokens_total",
        "stepgrpo_probe_tokens_total",
        "stepgrpo_overspent_tokens_total",  # nothing was saved, injected, discarded or aborted
        "stepgrpo_reasoning_steps_bucket",
        "stepgrpo_request_reasoning_tokens_bucket",
        "stepgrpo_request_answer_tokens_bucket",
        "stepgrpo_request_saved_tokens_bucket",
    }
    assert {tuple(each.labels.items()) for each in found.values()} == {(("trace_id", TRACE),)}
    assert found["stepgrpo_reasoning_tokens_total", None].value == 30
    assert found["stepgrpo_reasoning_steps_bucket", "2.0"].value == 2
    assert TRACE not in text  # the older format has no exemplars


def test_without_a_trace_that_is_kept_there_is_no_exemplar() -> None:
    _, dropped = scraped(ended(Traced(sampler=ALWAYS_OFF)))
    untraced = ended(Traced())
    untraced.timeline = Timeline()
    _, none = scraped(untraced)
    logged = ended(Traced())
    logged.timeline = Timeline("x", Start.at(0.0))  # followed by the request log alone
    assert dropped == none == scraped(logged)[1] == {}
