"""A local OpenTelemetry collector: receives spans as OTLP over HTTP and keeps them."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

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


class Collector:
    """A collector that serves at `url`."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw = b""
        """All spans received."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.raw += body
                collector.spans += spans_in(body)
                content = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    @contextlib.contextmanager
    def serving(self) -> Iterator["Collector"]:
        """Receive spans within the context."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

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
