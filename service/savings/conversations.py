"""What makes requests one conversation: how it began.

Chat clients send the whole conversation with every turn, so its beginning, up to the first message
of the user, is what all turns share. It is hashed with a secret key, neither kept nor logged.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["conversation_of", "conversations_of"]

_OPENINGS = ("system", "instructions", "conversation", "prompt_cache_key", "model")
"""Fields of a body that all turns share, where an API has them outside its messages."""


def conversation_of(body: Mapping[str, Any]) -> bytes:
    """The beginning of a request body's conversation."""
    shared = {name: body[name] for name in _OPENINGS if name in body}
    return json.dumps([shared, _beginning(body)], sort_keys=True).encode()


def conversations_of(body: Mapping[str, Any]) -> list[bytes]:
    """The same of each conversation of a batch; of any other body the only one."""
    several = body.get("messages")
    if isinstance(several, list) and several and all(isinstance(each, list) for each in several):
        return [conversation_of({**body, "messages": each}) for each in several]
    return [conversation_of(body)]


def _beginning(body: Mapping[str, Any]) -> list[Any]:
    """Messages up to the first of the user; of an API without messages the whole prompt."""
    messages = body.get("messages", body.get("input"))
    if isinstance(messages, list):
        return list(_until_user(messages))
    return [body.get("prompt", messages)]


def _until_user(messages: Iterable[Any]) -> Iterable[Any]:
    for message in messages:
        yield message
        if isinstance(message, Mapping) and message.get("role") == "user":
            return
