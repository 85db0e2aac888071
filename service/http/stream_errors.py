"""What the client of a stream hears when the stream breaks in the middle.

vLLM's chat and completions say it themselves. Its Responses API lets the exception through, and the
client would see nothing but a connection that ends (vLLM 0.31, `responses_stream_generator`).
"""

import json
from typing import Any

from service.params.apis import Api

__all__ = ["error_events"]

INTERNAL = 500


def error_events(error: BaseException, api: Api) -> bytes:
    """Events that end a stream of this API, for an exception that nobody turned into one."""
    status = int(getattr(error, "http_status", INTERNAL))
    message = str(error) if status != INTERNAL else "Internal server error"
    if api.holder:
        return _event({"type": "error", "code": str(status), "message": message, "param": None})
    kind = "api_error" if status == INTERNAL else "overloaded_error"
    if api.anthropic:
        return _event({"type": "error", "error": {"type": kind, "message": message}})
    data = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return b"data: " + json.dumps(data).encode() + b"\n\ndata: [DONE]\n\n"


def _event(data: dict[str, Any]) -> bytes:
    return b"event: error\ndata: " + json.dumps(data).encode() + b"\n\n"
