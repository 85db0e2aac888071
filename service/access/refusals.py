"""Refused requests: errors in OpenAI's shape, counted by cause."""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from prometheus_client import REGISTRY
from starlette.types import Send

from service.records.metric_table import counter

__all__ = ["Refused", "error_object", "render", "retry_headers", "send_refusal", "unauthorized"]

Headers = tuple[tuple[bytes, bytes], ...]
Cause = Literal["key", "rate", "concurrency", "capacity", "size", "shape", "malformed", "parameter"]

CAUSES: tuple[Cause, ...] = get_args(Cause)

_counter = counter("refusals_total", REGISTRY)
for _cause in CAUSES:
    _counter.labels(_cause)  # creates every series at start, at 0


@dataclass(slots=True, eq=False)
class Refused(Exception):
    """A request that is not admitted, with the response that the client gets."""

    cause: Cause
    """Value of the metric's label, from a closed set."""
    status: int
    kind: str
    """The ``type`` of the error."""
    message: str
    param: str | None = None
    headers: Headers = ()

    def count(self) -> None:
        """Count the refusal in ``stepgrpo_refusals_total``."""
        _counter.labels(self.cause).inc()


def unauthorized() -> Refused:
    """Return the refusal for a missing or unknown API key, which does not quote it."""
    message = "An API key is required: send Authorization: Bearer KEY with a key of this server."
    headers = ((b"www-authenticate", b"Bearer"),)
    return Refused("key", 401, "AuthenticationError", message, headers=headers)


def retry_headers(seconds: float) -> Headers:
    """Return Retry-After in seconds, and in milliseconds for OpenAI's clients."""
    milliseconds = str(math.ceil(seconds * 1000)).encode()
    return ((b"retry-after", str(math.ceil(seconds)).encode()), (b"retry-after-ms", milliseconds))


def error_object(message: str, kind: str, param: str | None, code: int) -> dict[str, Any]:
    """Return an error as OpenAI's API does."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def render(refused: Refused) -> tuple[Headers, bytes]:
    """Return headers and body of the response."""
    error = error_object(refused.message, refused.kind, refused.param, refused.status)
    body = json.dumps(error).encode()
    length = (b"content-length", str(len(body)).encode())
    return ((b"content-type", b"application/json"), length, *refused.headers), body


async def send_refusal(refused: Refused, send: Send) -> None:
    """Send the response and count it."""
    refused.count()
    headers, body = render(refused)
    start = {"type": "http.response.start", "status": refused.status, "headers": [*headers]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
