"""Refusals in the shape of OpenAI's errors, counted by cause."""

import json
import math
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from prometheus_client import REGISTRY

from service.records.metric_table import counter

__all__ = ["Refused", "answer", "content", "retry_headers", "unauthorized"]

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]
Cause = Literal["key", "rate", "concurrency", "capacity", "size", "shape", "malformed", "parameter"]

CAUSES: tuple[Cause, ...] = get_args(Cause)

_counter = counter("refusals_total", REGISTRY)
for _cause in CAUSES:
    _counter.labels(_cause)  # all series from the start: their number stays


@dataclass(slots=True, eq=False)
class Refused(Exception):
    """A request that is not let in: its status and what the client is told."""

    cause: Cause
    """A closed set, used as a metric's label."""
    status: int
    kind: str
    """The error's ``type``."""
    message: str
    param: str | None = None
    headers: Headers = ()

    def count(self) -> None:
        """Enter it in ``stepgrpo_refusals_total``."""
        _counter.labels(self.cause).inc()


def unauthorized() -> Refused:
    """For who has no key of this server's; says nothing of what was sent."""
    message = "This needs an API key: send Authorization: Bearer KEY with a key of this server."
    headers = ((b"www-authenticate", b"Bearer"),)
    return Refused("key", 401, "AuthenticationError", message, headers=headers)


def retry_headers(seconds: float) -> Headers:
    """When to come back, for any client and for OpenAI's, which read the milliseconds."""
    milliseconds = str(math.ceil(seconds * 1000)).encode()
    return ((b"retry-after", str(math.ceil(seconds)).encode()), (b"retry-after-ms", milliseconds))


def content(refused: Refused) -> tuple[Headers, bytes]:
    """Headers and body of the response."""
    error = {
        "message": refused.message,
        "type": refused.kind,
        "param": refused.param,
        "code": refused.status,
    }
    body = json.dumps({"error": error}).encode()
    length = (b"content-length", str(len(body)).encode())
    return ((b"content-type", b"application/json"), length, *refused.headers), body


async def answer(refused: Refused, send: Send) -> None:
    """Send the response, and count it."""
    refused.count()
    headers, body = content(refused)
    start = {"type": "http.response.start", "status": refused.status, "headers": [*headers]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
