"""What makes requests one conversation: how it began.

Chat clients send the whole conversation with every turn, so its beginning, up to the first message
of the user, is what all turns share. It is hashed with a secret key, neither kept nor logged.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["conversation_of"]

_OPENINGS = ("system", "instructions", "conversation", "prompt_cache_key", "model")
"""Fields of a body that all turns share, where an API has them outside its messages."""


def conversation_of(body: bytes) -> bytes | None:
    """The beginning of a request body's conversation; None for a body that is no JSON object."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict):
        return None
    shared = {name: parsed[name] for name in _OPENINGS if name in parsed}
    return json.dumps([shared, _beginning(parsed)], sort_keys=True).encode()


def _beginning(parsed: Mapping[str, Any]) -> list[Any]:
    """Messages up to the first of the user; of an API without messages the whole prompt."""
    messages = parsed.get("messages", parsed.get("input"))
    if isinstance(messages, list):
        return list(_until_user(messages))
    return [parsed.get("prompt", messages)]


def _until_user(messages: Iterable[Any]) -> Iterable[Any]:
    for message in messages:
        yield message
        if isinstance(message, Mapping) and message.get("role") == "user":
            return
