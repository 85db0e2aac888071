"""Readiness: ``GET /ready`` for load balancers, and Retry-After headers for HTTP 503.

vLLM's ``/health`` remains the liveness probe: it returns 200 until the end of a drain, whereas
``/ready`` returns 503 from its beginning.
"""

import random
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.middleware import route_of

__all__ = ["Readiness"]

PATH = "/ready"
UNAVAILABLE = 503


class Readiness:
    """ASGI middleware outside of access control: serves ``/ready``, adds Retry-After to 503s."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif route_of(scope) == PATH and scope["method"] in ("GET", "HEAD"):
            await _answer(scope["app"].state.engine_client, send)
        else:
            await self._app(scope, receive, _RetryHeaders(scope, send).send)


class _RetryHeaders:
    """Passes a response on and adds Retry-After if its status is 503."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == UNAVAILABLE:
            headers = [*message["headers"], *_retry_headers()]
            if self._scope["app"].state.engine_client.readiness != "ready":
                headers.append((b"connection", b"close"))  # the next may reach another server
            message = {**message, "headers": headers}
        await self._send(message)


def _retry_headers() -> list[tuple[bytes, bytes]]:
    """Return about a second, with jitter in the milliseconds that OpenAI's clients read."""
    milliseconds = str(random.randint(500, 1500)).encode()
    return [(b"retry-after", b"1"), (b"retry-after-ms", milliseconds)]


async def _answer(engine: Any, send: Send) -> None:
    """Send the state, and below it the warnings."""
    state = engine.readiness
    status = 200 if state == "ready" else UNAVAILABLE
    body = "\n".join([state, *engine.warnings]).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    if status == UNAVAILABLE:
        headers += _retry_headers()
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
