"""Outermost: what clients expect of any API, whoever of the layers below answers.

A request's ``X-Request-Id`` comes back with its response, and errors of the Messages API have the
shape and the names that Anthropic's clients know.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

from service.params.apis import MESSAGES

__all__ = ["SdkCompatibility"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]

_ANTHROPICS = (MESSAGES, f"{MESSAGES}/count_tokens")
_ID = re.compile(rb"[\x20-\x7e]{1,256}")
"""What is sent back: no line ends, which would begin a header of the client's own."""
_KINDS: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
}


class SdkCompatibility:
    """ASGI middleware."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            if scope["path"].endswith(_ANTHROPICS):
                send = _Translated(send).send
            if identity := _identity(scope):
                send = _identified(send, identity)
        await self._app(scope, receive, send)


def _identity(scope: Scope) -> bytes | None:
    value: bytes | None = dict(scope["headers"]).get(b"x-request-id")
    return value if value is not None and _ID.fullmatch(value) else None


def _identified(send: Send, identity: bytes) -> Send:
    async def identified(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [pair for pair in message["headers"] if pair[0].lower() != b"x-request-id"]
            message = {**message, "headers": [*headers, (b"x-request-id", identity)]}
        await send(message)

    return identified


class _Translated:
    """Passes a response on; an error in JSON becomes one of Anthropic's."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            await self._take(self._start, message)

    async def _take(self, start: Message, message: Message) -> None:
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        body = _translated(self._body, start["status"])
        headers = [pair for pair in start["headers"] if pair[0] != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        self._start = None
        await self._send({**start, "headers": headers})
        await self._send({**message, "body": body})


def _translated(body: bytes, status: int) -> bytes:
    try:
        error = json.loads(body)["error"]
        told = {"type": _kind(status), "message": error["message"]}
    except (ValueError, KeyError, TypeError):
        return body
    if error.get("param") is not None:
        told["param"] = error["param"]
    return json.dumps({"type": "error", "error": told}).encode()


def _kind(status: int) -> str:
    other = "api_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return _KINDS.get(status, other)
