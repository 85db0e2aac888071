"""OpenTelemetry spans of a request, its thinking, its probes and its answer.

They go where vLLM's own go (``--otlp-traces-endpoint``), and vLLM's hang below them: of the main
stream below the request, of a probe below the probe, of the answer after a cut below the answer.
vLLM makes no span of a stream that was aborted, as the main one is by a cut. Spans hold numbers and
names of closed sets, no text. A span that others hang below is opened when its time comes, because
they need its id; all are sent when the request has ended, so nothing is done per token.
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

from service.records.log_line import probe_event, response_id
from service.records.sequence import SequenceRecord
from service.records.timeline import Moment, Start, Timeline

__all__ = ["RequestSpans", "SequenceSpans", "Tracing", "tracing_from_config"]

_PROPAGATOR = TraceContextTextMapPropagator()


def tracing_from_config(config: Any) -> "Tracing | None":
    """Tracing as a vLLM configuration has it; None where it has none. To be asked for once vLLM's
    engine client is made, which sets up the exporter."""
    traced = config.observability_config.otlp_traces_endpoint is not None
    return Tracing(get_tracer("stepgrpo")) if traced else None


class Tracing:
    """Opens the spans of requests."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def request(self, start: Start, headers: Mapping[str, str] | None) -> "RequestSpans":
        """The span of a request that came then, with these trace headers."""
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
        """In hexadecimal; None where the sampler keeps no trace."""
        self._tracer = tracer
        self._span = span
        self._ended: list[SequenceRecord] = []
        self._open = 0

    @property
    def options(self) -> dict[str, Any]:
        """Of ``generate``, for a stream below it."""
        return _options(self._span)

    def sequence(self) -> "SequenceSpans":
        """The spans of one more of its sequences."""
        self._open += 1
        return SequenceSpans(self)

    def below(self, name: str, moment: Moment) -> Span:
        """A span below it, from this moment on."""
        context = set_span_in_context(self._span)
        return self._tracer.start_span(
            f"stepgrpo.{name}", context, start_time=self.start.wall_at(moment)
        )

    def leave(self, record: SequenceRecord, timeline: Timeline) -> None:
        """A sequence has ended."""
        self._ended.append(record)
        self._open -= 1
        if self._open == 0:
            attributes = {"gen_ai.request.id": response_id(timeline.request_id)}
            self._span.set_attributes(attributes | request_attributes(self._ended))
            if any(each.status == "failed" for each in self._ended):
                self._span.set_status(Status(StatusCode.ERROR))
            self.end(self._span, timeline.ended)

    def end(self, span: Span, moment: Moment | None) -> None:
        """End a span at this moment, or now."""
        span.end(None if moment is None else self.start.wall_at(moment))


class SequenceSpans:
    """The spans of one sequence, below its request's."""

    def __init__(self, request: RequestSpans) -> None:
        self._request = request
        self._probes: list[Span] = []
        self._answer: Span | None = None

    @property
    def trace_id(self) -> str | None:
        """Of the trace, in hexadecimal; None where the sampler keeps none."""
        return self._request.trace_id

    def probe(self, number: int, moment: Moment) -> Mapping[str, Any]:
        """A probe is put; with it go these options of ``generate``."""
        del number  # they come in their order
        self._probes.append(self._request.below("probe", moment))
        return _options(self._probes[-1])

    def answer(self, moment: Moment) -> Mapping[str, Any]:
        """The answer after a cut is asked for; with it go these options."""
        self._answer = self._request.below("answer", moment)
        return _options(self._answer)

    def end(self, record: SequenceRecord, timeline: Timeline) -> None:
        """The sequence has ended: complete its spans and send them."""
        index = {"stepgrpo.index": record.choice}
        self._end_probes(timeline, index)
        if record.outcome is not None and record.outcome.reasoning_tokens:
            self._end_thinking(record, timeline, index)
        answer = self._answer
        if answer is None and timeline.thought is not None and timeline.cut is None:
            answer = self._request.below("answer", timeline.thought)
        if answer is not None:
            answer.set_attributes(index)
            if record.finish_reason is not None:
                answer.set_attribute("stepgrpo.finish_reason", record.finish_reason)
            self._request.end(answer, timeline.ended)
        self._request.leave(record, timeline)

    def _end_probes(self, timeline: Timeline, index: Mapping[str, int]) -> None:
        for number, (span, times) in enumerate(zip(self._probes, timeline.probes, strict=False)):
            event = probe_event(timeline, number)
            told = {k: v for k, v in event.items() if k not in _TIMES and v is not None}
            span.set_attributes({**index, **{f"stepgrpo.{name}": v for name, v in told.items()}})
            refused = times.asked if times.refused else None
            self._request.end(span, times.answered or refused or timeline.thought or timeline.ended)
        for span in self._probes[len(timeline.probes) :]:
            self._request.end(span, timeline.ended)

    def _end_thinking(
        self, record: SequenceRecord, timeline: Timeline, index: Mapping[str, int]
    ) -> None:
        if timeline.first_token is None:
            return
        span = self._request.below("thinking", timeline.first_token)
        span.set_attributes({**index, **thinking_attributes(record)})
        self._request.end(span, timeline.thought or timeline.ended)


_TIMES = ("at", "answered", "event")


def request_attributes(records: list[SequenceRecord]) -> dict[str, Any]:
    """Of a request, its sequences together."""
    first = records[0]
    reasons = [str(each.outcome.reason) for each in records if each.outcome]
    outcomes = [each.outcome for each in records if each.outcome]
    return {
        "gen_ai.response.model": first.model_name,
        "gen_ai.request.n": len(records),
        "gen_ai.usage.prompt_tokens": first.prompt_tokens,
        "gen_ai.usage.completion_tokens": sum(each.delivered_tokens for each in records),
        "stepgrpo.policy": first.policy,
        "stepgrpo.label": first.label,
        "stepgrpo.exit_reason": reasons[0] if len(reasons) == 1 else reasons,
        "stepgrpo.reasoning_tokens": sum(each.reasoning_tokens for each in outcomes),
        "stepgrpo.probe_tokens": sum(each.probe_tokens for each in records),
        "stepgrpo.discarded_tokens": sum(each.discarded_tokens for each in records),
    }


def thinking_attributes(record: SequenceRecord) -> dict[str, Any]:
    """Of the thinking of a sequence that has some."""
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
