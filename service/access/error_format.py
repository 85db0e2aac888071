"""Errors of the framework in the shape of OpenAI's.

FastAPI answers what it refuses itself, such as a path that is none and a body that cannot be
decoded, with ``{"detail": ...}``; vLLM's handlers reach only some of it.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from service.access.refusals import Refused, content

__all__ = ["OpenAIErrorFormat"]

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class OpenAIErrorFormat:
    """Passes a response on; a JSON error of the framework gets the shape that clients read."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body: list[bytes] = []

    async def send(self, message: Message) -> None:
        """One message of the application's."""
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
        body = b"".join(self._body)
        refused = _of_the_framework(start["status"], body)
        if refused is not None:
            headers, body = content(refused)
            others = [
                h for h in start["headers"] if h[0] not in (b"content-type", b"content-length")
            ]
            start = {**start, "headers": [*others, *headers]}
        self._start = None
        await self._send(start)
        await self._send({**message, "body": body})


def _is_error(message: Message) -> bool:
    kind = dict(message["headers"]).get(b"content-type", b"")
    return bool(message["status"] >= 400 and kind.startswith(b"application/json"))


def _of_the_framework(status: int, body: bytes) -> Refused | None:
    try:
        parsed = json.loads(body)
    except ValueError:
        return None
    if not isinstance(parsed, dict) or parsed.keys() != {"detail"}:
        return None
    detail = parsed["detail"]
    message = detail if isinstance(detail, str) else json.dumps(detail)
    return Refused("shape", status, HTTPStatus(status).phrase, message)
