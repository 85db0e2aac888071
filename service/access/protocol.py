"""uvicorn's HTTP/1.1 protocol with limits on request heads and errors in OpenAI's shape.

Bytes that are not valid HTTP never reach the application, so no middleware can answer them. Nothing
else limits the request line and headers either: vLLM sets h11's limits, which uvicorn ignores where
httptools is installed, and uvicorn keeps connections open whose request never arrives.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.access.refusals import Refused, render

__all__ = ["MAX_HEAD", "HttpProtocol"]

MAX_HEAD = 65_536
"""Largest request line with headers, in bytes."""


class HttpProtocol(HttpToolsProtocol):
    """One connection. Overrides uvicorn's methods, since it has no hook for these answers."""

    head_seconds = 30.0
    """Time limit for a request's head, in seconds since the connection or the head's first byte."""

    _in_head = False
    _head_size = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of the first request's head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data; refuse a head that is too large."""
        if self.cycle is None or self.cycle.response_complete:
            self._start_timer()
        was_in_head = self._in_head
        super().data_received(data)
        if self._in_head and was_in_head:
            self._head_size += len(data)
        if self._in_head and self._head_size > MAX_HEAD:
            self._refuse(431, f"The request's head is larger than {MAX_HEAD} bytes.")

    def on_message_begin(self) -> None:
        """Start a request's head."""
        super().on_message_begin()
        self._in_head, self._head_size = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; ignore the trailers after a chunked body, which look like headers."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """End the head."""
        self._stop_timer()
        self._in_head = False
        super().on_headers_complete()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_seconds, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        if self._in_head:
            self._refuse(408, f"The request's head took more than {self.head_seconds:g} seconds.")
        else:
            self.transport.close()  # an idle connection

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not valid HTTP."""
        self._refuse(400, msg)

    def _refuse(self, status: int, message: str) -> None:
        self._in_head = False
        if self.transport.is_closing():
            return
        refused = Refused("malformed", status, "BadRequestError", message)
        refused.count()
        idle = self.cycle is None or not self.cycle.response_started
        if idle or self.cycle.response_complete:  # never in the middle of another response
            headers, body = render(refused)
            lines = [b"%s: %s\r\n" % pair for pair in (*headers, (b"connection", b"close"))]
            self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.transport.close()
