"""Where the responses of each API have room for what we add.

The ``stepgrpo`` block stands at the top of a JSON response. In a stream it stands in the last
event that has room: the last chunk, the whole response that ``response.completed`` carries, or
``message_delta``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Api", "api_of"]


@dataclass(frozen=True, slots=True)
class Api:
    """One API's names for things."""

    tokens: str
    """Of the delivered tokens in ``usage``."""
    details: str
    """Of the object beside it that splits them."""
    last: tuple[bytes, ...]
    """Only an event that holds one of these can be the last with room. Inside a JSON string the
    quotes would be escaped."""
    waits: bool = False
    """It is the last if ``[DONE]`` follows: such an event waits for its successor."""
    holder: str | None = None
    """The object of the last event that holds what a JSON response would; None: the event."""
    both_names: bool = False
    """Messages have ``reasoning``, which clients also look for as ``reasoning_content``."""


_COMPLETIONS = Api(
    "completion_tokens",
    "completion_tokens_details",
    last=(b'"finish_reason":"', b'"choices":[]'),
    waits=True,
)
_BY_PATH: Mapping[str, Api] = {
    "/v1/chat/completions": Api(
        "completion_tokens",
        "completion_tokens_details",
        last=_COMPLETIONS.last,
        waits=True,
        both_names=True,
    ),
    "/v1/responses": Api(
        "output_tokens",
        "output_tokens_details",
        last=(
            b"event: response.completed\n",
            b"event: response.incomplete\n",
            b"event: response.failed\n",
        ),
        holder="response",
    ),
    "/v1/messages": Api(
        "output_tokens", "output_tokens_details", last=(b"event: message_delta\n",)
    ),
}


def api_of(path: str) -> Api:
    """The API that is served at `path`, below whatever root path."""
    return next((api for end, api in _BY_PATH.items() if path.endswith(end)), _COMPLETIONS)
