"""A local OpenTelemetry collector: receives spans as OTLP over HTTP and keeps them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.service.http_server import Handler, LocalServer

SECONDS = 30.0


@dataclass
class Span:
    """One span, with ids in hexadecimal."""

    name: str
    trace: str
    id: str
    parent: str
    begin: int
    end: int
    status: int
    attributes: dict[str, Any] = field(default_factory=dict)


class Collector(LocalServer):
    """A collector that serves at `url`."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw = b""
        """All spans received."""
        collector = self

        class Exports(Handler):
            def do_POST(self) -> None:
                body = self.body()
                collector.raw += body
                collector.spans += spans_in(body)
                content = ExportTraceServiceResponse().SerializeToString()
                self.reply(200, content, "application/x-protobuf")

        super().__init__(Exports)
        self.url = f"{self.address}/v1/traces"

    def wait(self, trace: str, complete: Callable[[list[Span]], bool]) -> list[Span]:
        """Return the spans of a trace, waiting until they are complete."""
        deadline = time.monotonic() + SECONDS
        while not complete(found := [each for each in self.spans if each.trace == trace]):
            assert time.monotonic() < deadline, sorted(each.name for each in found)
            time.sleep(0.05)
        return found


def spans_in(body: bytes) -> list[Span]:
    """Return the spans in an export."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Span(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            span.status.code,
            {each.key: value_of(each.value) for each in span.attributes},
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def value_of(value: Any) -> Any:
    """Return the value as a Python object."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(each) for each in value.array_value.values]
    return getattr(value, kind)
