"""OpenTelemetry spans of a request, its thinking, its probes and its answer.

They are exported to the same place as vLLM's spans (``--otlp-traces-endpoint``), which become their
children: vLLM's span of the main stream is a child of the request, that of a probe a child of the
probe, that of the answer after an exit a child of the answer. vLLM makes no span of an aborted
stream, so the main stream of an exit has none. Spans hold numbers and names from closed sets, no
text. Spans with children start when their work starts, because the children need their id; the rest
are built when the request has ended, so there is no work per token.
"""

from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
    get_tracer,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.records.log_line import logged_id, probe_event
from service.records.sequence import SequenceRecord
from service.records.timeline import Moment, Start, Timeline

__all__ = ["RequestSpans", "SequenceSpans", "Tracing", "tracing_from_config"]

_PROPAGATOR = TraceContextTextMapPropagator()


def tracing_from_config(config: Any) -> "Tracing | None":
    """Return tracing as a vLLM configuration sets it up, or None. Call it after vLLM's engine
    client was created, which installs the exporter."""
    traced = config.observability_config.otlp_traces_endpoint is not None
    return Tracing(get_tracer("stepgrpo")) if traced else None


class Tracing:
    """Creates the spans of requests."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def request(self, start: Start, headers: Mapping[str, str] | None) -> "RequestSpans":
        """Start the span of a request with these trace headers."""
        context = _PROPAGATOR.extract(headers or {})
        span = self._tracer.start_span(
            "stepgrpo.request", context, SpanKind.SERVER, start_time=start.wall
        )
        return RequestSpans(self._tracer, span, start)


class RequestSpans:
    """The span of a request; it ends with the last of its sequences."""

    def __init__(self, tracer: Tracer, span: Span, start: Start) -> None:
        self.start = start
        context = span.get_span_context()
        self.trace_id = format_trace_id(context.trace_id) if context.trace_flags.sampled else None
        """Trace id in hexadecimal; None if the trace is not sampled."""
        self._tracer = tracer
        self._span = span
        self._ended: list[SequenceRecord] = []
        self._open = 0

    @property
    def options(self) -> dict[str, Any]:
        """Options of ``generate`` for a child stream."""
        return _options(self._span)

    def sequence(self) -> "SequenceSpans":
        """Return the spans of one more sequence."""
        self._open += 1
        return SequenceSpans(self)

    def child(self, name: str, moment: Moment) -> Span:
        """Start a child span at `moment`."""
        context = set_span_in_context(self._span)
        return self._tracer.start_span(
            f"stepgrpo.{name}", context, start_time=self.start.wall_at(moment)
        )

    def leave(self, record: SequenceRecord, timeline: Timeline) -> None:
        """Record that a sequence has ended; end the span after the last one."""
        self._ended.append(record)
        self._open -= 1
        if self._open == 0:
            name = logged_id(timeline.request_id)
            self._span.set_attributes(request_attributes(name, self._ended))
            if any(each.status == "failed" for each in self._ended):
                self._span.set_status(Status(StatusCode.ERROR))
            self.end(self._span, timeline.ended)

    def end(self, span: Span, moment: Moment | None) -> None:
        """End a span at `moment`, or now."""
        span.end(None if moment is None else self.start.wall_at(moment))


class SequenceSpans:
    """Spans of one sequence, children of its request's span."""

    def __init__(self, request: RequestSpans) -> None:
        self._request = request
        self._probes: list[Span] = []
        self._answer: Span | None = None

    @property
    def trace_id(self) -> str | None:
        """Trace id in hexadecimal; None if the trace is not sampled."""
        return self._request.trace_id

    def probe(self, number: int, moment: Moment) -> Mapping[str, Any]:
        """Start the span of a probe; return options for its ``generate`` call."""
        del number  # probes start in order
        self._probes.append(self._request.child("probe", moment))
        return _options(self._probes[-1])

    def answer(self, moment: Moment) -> Mapping[str, Any]:
        """Start the span of the answer after an exit; return options for its ``generate`` call."""
        self._answer = self._request.child("answer", moment)
        return _options(self._answer)

    def end(self, record: SequenceRecord, timeline: Timeline) -> None:
        """Complete and end the spans of the sequence."""
        index = {"stepgrpo.index": record.choice}
        self._end_probes(timeline, index)
        if record.outcome is not None and record.outcome.reasoning_tokens:
            self._end_thinking(record, timeline, index)
        answer = self._answer
        if answer is None and timeline.thought is not None and timeline.cut is None:
            answer = self._request.child("answer", timeline.thought)
        if answer is not None:
            answer.set_attributes(index)
            if record.finish_reason is not None:
                answer.set_attribute("stepgrpo.finish_reason", record.finish_reason)
            self._request.end(answer, timeline.ended)
        self._request.leave(record, timeline)

    def _end_probes(self, timeline: Timeline, index: Mapping[str, int]) -> None:
        for number, (span, times) in enumerate(zip(self._probes, timeline.probes, strict=False)):
            event = probe_event(timeline, number)
            attributes = {k: v for k, v in event.items() if k not in _TIMES and v is not None}
            span.set_attributes(
                {**index, **{f"stepgrpo.{name}": v for name, v in attributes.items()}}
            )
            refused = times.asked if times.refused else None
            self._request.end(span, times.answered or refused or timeline.thought or timeline.ended)
        for span in self._probes[len(timeline.probes) :]:
            self._request.end(span, timeline.ended)

    def _end_thinking(
        self, record: SequenceRecord, timeline: Timeline, index: Mapping[str, int]
    ) -> None:
        if timeline.first_token is None:
            return
        span = self._request.child("thinking", timeline.first_token)
        span.set_attributes({**index, **thinking_attributes(record)})
        self._request.end(span, timeline.thought or timeline.ended)


_TIMES = ("at", "answered", "event")


def request_attributes(name: str, records: list[SequenceRecord]) -> dict[str, Any]:
    """Return attributes of the request with this id, summed over its sequences.

    They follow OpenTelemetry's semantic conventions for generative AI; where vLLM uses an older
    name, both are set.
    """
    first = records[0]
    reasons = [str(each.outcome.reason) for each in records if each.outcome]
    outcomes = [each.outcome for each in records if each.outcome]
    delivered = sum(each.delivered_tokens for each in records)
    reasoning = {"reasoning.output_tokens": sum(each.reasoning_tokens for each in outcomes)}
    usage = {"input_tokens": first.prompt_tokens, "output_tokens": delivered}
    usage |= reasoning if outcomes else {}
    old = {"prompt_tokens": first.prompt_tokens, "completion_tokens": delivered}
    return {f"gen_ai.usage.{each}": count for each, count in (usage | old).items()} | {
        "gen_ai.operation.name": "text_completion" if name.startswith("cmpl-") else "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": first.model_name,
        "gen_ai.request.choice.count": len(records),
        "gen_ai.request.n": len(records),
        "gen_ai.request.id": name,
        "gen_ai.response.id": name,
        "gen_ai.response.model": first.model_name,
        "gen_ai.response.finish_reasons": [each.finish_reason or "error" for each in records],
        "stepgrpo.policy": first.policy,
        "stepgrpo.label": first.label,
        "stepgrpo.exit_reason": reasons[0] if len(reasons) == 1 else reasons,
        "stepgrpo.reasoning_tokens": reasoning["reasoning.output_tokens"],
        "stepgrpo.probe_tokens": sum(each.probe_tokens for each in records),
        "stepgrpo.discarded_tokens": sum(each.discarded_tokens for each in records),
    }


def thinking_attributes(record: SequenceRecord) -> dict[str, Any]:
    """Return attributes of the thinking of a sequence that has an outcome."""
    outcome = record.outcome
    assert outcome is not None
    confidence = {} if outcome.confidence is None else {"stepgrpo.confidence": outcome.confidence}
    return confidence | {
        "stepgrpo.exit_reason": str(outcome.reason),
        "stepgrpo.steps": outcome.steps,
        "stepgrpo.reasoning_tokens": outcome.reasoning_tokens,
        "stepgrpo.probes": outcome.probes,
    }


def _options(span: Span) -> dict[str, Any]:
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, set_span_in_context(span))
    return {"trace_headers": headers}
