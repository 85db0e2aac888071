"""uvicorn's HTTP/1.1, with errors in OpenAI's shape and heads of bounded size and time.

What is no HTTP never reaches the application, so its middleware cannot answer it. And nothing else
bounds what comes before the application: vLLM's limits of headers are h11's, which uvicorn does not
use where httptools is installed. Nor does it end a connection whose request never comes.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.access.refusals import Refused, content

__all__ = ["MAX_HEAD", "HttpProtocol"]

MAX_HEAD = 65_536
"""Bytes of a request's line and headers."""


class HttpProtocol(HttpToolsProtocol):
    """One connection. uvicorn has no other hook for these answers than its methods."""

    head_seconds = 30.0
    """For a request's head, from the connection or its first byte on."""

    _in_head = False
    _head = 0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client; a head that goes on and on ends the connection."""
        if self.cycle is None or self.cycle.response_complete:
            self._expect_head()
        before = self._in_head
        super().data_received(data)
        if self._in_head and before:
            self._head += len(data)
        if self._in_head and self._head > MAX_HEAD:
            self._refuse(431, f"The request's head is larger than {MAX_HEAD} bytes.")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head, self._head = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. What follows a chunked body is none, though it looks like one."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._expect_nothing()
        self._in_head = False
        super().on_headers_complete()

    def _expect_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.head_seconds, self._end_late)

    def _expect_nothing(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end_late(self) -> None:
        if self._in_head:
            self._refuse(408, f"The request's head took more than {self.head_seconds:g} seconds.")
        else:
            self.transport.close()  # it has said nothing

    def send_400_response(self, msg: str) -> None:
        """What was sent is no HTTP."""
        self._refuse(400, msg)

    def _refuse(self, status: int, message: str) -> None:
        self._in_head = False
        if self.transport.is_closing():
            return
        refused = Refused("malformed", status, "BadRequestError", message)
        refused.count()
        answered = self.cycle is None or not self.cycle.response_started
        if answered or self.cycle.response_complete:  # amid another response it would be garbage
            headers, body = content(refused)
            lines = [b"%s: %s\r\n" % pair for pair in (*headers, (b"connection", b"close"))]
            self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.transport.close()
