"""A parameter that cannot be honoured, answered in the shape that clients of each API read."""

import json

from service.access.refusals import Headers, Refused, content
from service.apis import Api

__all__ = ["bad_request"]

BAD_REQUEST = 400


def bad_request(message: str, parameter: str | None, api: Api) -> tuple[Headers, bytes]:
    """Headers and body of a response with status 400."""
    if not api.anthropic:
        return content(Refused("shape", BAD_REQUEST, "BadRequestError", message, parameter))
    error = {"type": "invalid_request_error", "message": message, "param": parameter}
    body = json.dumps({"type": "error", "error": error}).encode()
    length = (b"content-length", str(len(body)).encode())
    return ((b"content-type", b"application/json"), length), body
