"""Where the responses of each API have room for what we add.

The ``stepgrpo`` block stands at the top of a JSON response. In a stream it stands in the last
event that has room: the last chunk, the whole response that ``response.completed`` carries, or
``message_delta``. A batch of conversations is answered as one chat is.
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
    anthropic: bool = False
    """Errors have Anthropic's shape."""


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
    """The endpoint at `path`, below whatever root path, that generates from bodies which may hold
    parameters of the thinking; None for all else."""
    return next((each for each in _GENERATING if path.endswith(each)), None)


def api_of(path: str) -> Api:
    """The API that is served at `path`, below whatever root path."""
    return next((api for end, api in _BY_PATH.items() if path.endswith(end)), _COMPLETIONS)
