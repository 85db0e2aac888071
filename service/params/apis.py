"""The place of the ``stepgrpo`` block in the responses of each API.

In a JSON response it is a top-level key. In a stream it is in the last event that can carry it: the
last chunk, the response inside ``response.completed``, or ``message_delta``. A batch of chats is
answered like one chat.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "BATCH",
    "CHAT",
    "COMPLETIONS",
    "INVOCATIONS",
    "MESSAGES",
    "RESPONSES",
    "Api",
    "api_of",
    "generating",
]

CHAT = "/v1/chat/completions"
BATCH = "/v1/chat/completions/batch"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
INVOCATIONS = "/invocations"
_GENERATING = (BATCH, CHAT, COMPLETIONS, RESPONSES, MESSAGES, INVOCATIONS)


@dataclass(frozen=True, slots=True)
class Api:
    """Field names of one API."""

    tokens: str
    """Key of the delivered tokens in ``usage``."""
    details: str
    """Key of the object in ``usage`` that splits them."""
    last: tuple[bytes, ...]
    """Markers of events that can be the last one with the block. Inside a JSON string their quotes
    would be escaped."""
    waits: bool = False
    """Such an event is the last one only if ``[DONE]`` follows, so it is held back until then."""
    holder: str | None = None
    """Key in the last event of what a JSON response would be; None for the event itself."""
    both_names: bool = False
    """Messages have ``reasoning``, which some clients expect as ``reasoning_content``."""
    anthropic: bool = False
    """Errors have Anthropic's format."""


_COMPLETIONS = Api(
    "completion_tokens",
    "completion_tokens_details",
    last=(b'"finish_reason":"', b'"choices":[]'),
    waits=True,
)
_CHAT = dataclasses.replace(_COMPLETIONS, both_names=True)
_BY_PATH: Mapping[str, Api] = {
    CHAT: _CHAT,
    BATCH: _CHAT,
    RESPONSES: Api(
        "output_tokens",
        "output_tokens_details",
        last=(
            b"event: response.completed\n",
            b"event: response.incomplete\n",
            b"event: response.failed\n",
        ),
        holder="response",
    ),
    MESSAGES: Api(
        "output_tokens",
        "output_tokens_details",
        last=(b"event: message_delta\n",),
        anthropic=True,
    ),
}


def generating(path: str) -> str | None:
    """Return the generating endpoint at `path`, below any root path; None if it is another one."""
    return next((each for each in _GENERATING if path.endswith(each)), None)


def api_of(path: str) -> Api:
    """Return the API served at `path`, below any root path."""
    return next((api for end, api in _BY_PATH.items() if path.endswith(end)), _COMPLETIONS)
