"""Rewriting of JSON error responses; errors of the framework get the shape of OpenAI's.

FastAPI answers unknown routes and undecodable bodies with ``{"detail": ...}``, and vLLM's exception
handlers cover only some of these.
"""

import json
from collections.abc import Callable
from http import HTTPStatus

from starlette.types import Message, Send

from service.access.refusals import error_object

__all__ = ["ErrorRewriter", "format_framework_error"]


class ErrorRewriter:
    """Passes a response on and rewrites its body if it is a JSON error (status 400 and above)."""

    def __init__(self, send: Send, rewrite: Callable[[int, bytes], bytes]) -> None:
        self._send = send
        self._rewrite = rewrite
        self._start: Message | None = None
        self._body: list[bytes] = []

    async def send(self, message: Message) -> None:
        """Send one message of the application."""
        if message["type"] == "http.response.start" and _is_error(message):
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            await self._take(self._start, message)

    async def _take(self, start: Message, message: Message) -> None:
        self._body.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        original = b"".join(self._body)
        body = self._rewrite(start["status"], original)
        if body is not original:
            headers = [pair for pair in start["headers"] if pair[0] != b"content-length"]
            start = {**start, "headers": [*headers, (b"content-length", b"%d" % len(body))]}
        self._start = None
        await self._send(start)
        await self._send({**message, "body": body})


def _is_error(message: Message) -> bool:
    content_type = dict(message["headers"]).get(b"content-type", b"")
    return bool(message["status"] >= 400 and content_type.startswith(b"application/json"))


def format_framework_error(status: int, body: bytes) -> bytes:
    """Return an error of FastAPI or Starlette in OpenAI's shape, and any other body unchanged."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return body
    if not isinstance(parsed, dict) or parsed.keys() != {"detail"}:
        return body
    detail = parsed["detail"]
    message = detail if isinstance(detail, str) else json.dumps(detail)
    return json.dumps(error_object(message, HTTPStatus(status).phrase, None, status)).encode()
