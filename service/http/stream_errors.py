"""Error events for a stream that breaks in the middle.

vLLM's chat and completions APIs send one themselves. Its Responses API lets the exception through,
so the client would only see a closed connection (vLLM 0.31, `responses_stream_generator`).
"""

import json
from typing import Any

from service.access.refusals import error_object
from service.params.apis import Api

__all__ = ["error_events"]

INTERNAL = 500


def error_events(error: BaseException, api: Api) -> bytes:
    """Return the events that end a stream of `api` after an unhandled exception."""
    status = int(getattr(error, "http_status", INTERNAL))
    message = str(error) if status != INTERNAL else "Internal server error"
    if api.holder:
        return _event({"type": "error", "code": str(status), "message": message, "param": None})
    kind = "api_error" if status == INTERNAL else "overloaded_error"
    if api.anthropic:
        return _event({"type": "error", "error": {"type": kind, "message": message}})
    data = error_object(message, kind, None, status)
    return b"data: " + json.dumps(data).encode() + b"\n\ndata: [DONE]\n\n"


def _event(data: dict[str, Any]) -> bytes:
    return b"event: error\ndata: " + json.dumps(data).encode() + b"\n\n"
