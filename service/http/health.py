"""``GET /ready``: whether to send requests here; and when to come back after a refusal.

vLLM's ``/health`` stays what it is, whether the process should live on: it is 200 to the end of a
drain. Balancers want to know earlier.
"""

import random
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["Readiness"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PATH = "/ready"
UNAVAILABLE = 503


class Readiness:
    """Outermost ASGI middleware: answers ``/ready`` without a key, adds Retry-After to 503s."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _path(scope) == PATH and scope["method"] in ("GET", "HEAD"):
            await _answer(scope["app"].state.engine_client, send)
        else:
            await self._app(scope, receive, _Retrying(scope, send).send)


class _Retrying:
    """Passes a response on; one with status 503 says when to try again."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == UNAVAILABLE:
            headers = [*message["headers"], *_retry_headers()]
            if self._scope["app"].state.engine_client.readiness != "ready":
                headers.append((b"connection", b"close"))  # another one leads elsewhere
            message = {**message, "headers": headers}
        await self._send(message)


def _retry_headers() -> list[tuple[bytes, bytes]]:
    """A second or so; the OpenAI clients read the milliseconds, and should not all come at once."""
    milliseconds = str(random.randint(500, 1500)).encode()
    return [(b"retry-after", b"1"), (b"retry-after-ms", milliseconds)]


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


async def _answer(engine: Any, send: Send) -> None:
    """The state, and below it what is not as it should be."""
    state = engine.readiness
    status = 200 if state == "ready" else UNAVAILABLE
    body = "\n".join([state, *engine.warnings]).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    if status == UNAVAILABLE:
        headers += _retry_headers()
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
