"""Outermost middleware: conventions that SDKs expect of every response.

A request's ``X-Request-Id`` is returned with its response, and errors of the Messages API have the
shape and type names of Anthropic's API.
"""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.error_format import ErrorRewriter
from service.params.apis import MESSAGES

__all__ = ["SdkCompatibility"]

_ANTHROPIC = (MESSAGES, f"{MESSAGES}/count_tokens")
_REQUEST_ID = re.compile(rb"[\x20-\x7e]{1,256}")
"""Ids that are returned: line ends would let a client inject headers."""
_TYPES: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
}


class SdkCompatibility:
    """ASGI middleware for request ids and Anthropic's errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            if scope["path"].endswith(_ANTHROPIC):
                send = ErrorRewriter(send, _anthropic_error).send
            if request_id := _request_id(scope):
                send = _with_request_id(send, request_id)
        await self._app(scope, receive, send)


def _request_id(scope: Scope) -> bytes | None:
    value: bytes | None = dict(scope["headers"]).get(b"x-request-id")
    return value if value is not None and _REQUEST_ID.fullmatch(value) else None


def _with_request_id(send: Send, request_id: bytes) -> Send:
    async def send_with_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [pair for pair in message["headers"] if pair[0].lower() != b"x-request-id"]
            message = {**message, "headers": [*headers, (b"x-request-id", request_id)]}
        await send(message)

    return send_with_id


def _anthropic_error(status: int, body: bytes) -> bytes:
    try:
        error = json.loads(body)["error"]
        found = {"type": _type_of(status), "message": error["message"]}
    except (ValueError, KeyError, TypeError):
        return body
    if error.get("param") is not None:
        found["param"] = error["param"]
    return json.dumps({"type": "error", "error": found}).encode()


def _type_of(status: int) -> str:
    other = "api_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return _TYPES.get(status, other)
