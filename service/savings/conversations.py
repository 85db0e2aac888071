"""Conversation keys: requests belong to the same conversation if they begin alike.

Chat clients send the whole conversation with every turn, so all turns share its beginning up to the
first user message. The beginning is hashed with a secret key; it is neither stored nor logged.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["conversation_of", "conversations_of"]

_OPENINGS = ("system", "instructions", "conversation", "prompt_cache_key", "model")
"""Body fields outside the messages that all turns of a conversation share."""


def conversation_of(body: Mapping[str, Any]) -> bytes:
    """Return the beginning of a request body's conversation."""
    shared = {name: body[name] for name in _OPENINGS if name in body}
    return json.dumps([shared, _beginning(body)], sort_keys=True).encode()


def conversations_of(body: Mapping[str, Any]) -> list[bytes]:
    """Return the beginning of each conversation of a batch, or the only one of other bodies."""
    batch = body.get("messages")
    if isinstance(batch, list) and batch and all(isinstance(each, list) for each in batch):
        return [conversation_of({**body, "messages": each}) for each in batch]
    return [conversation_of(body)]


def _beginning(body: Mapping[str, Any]) -> list[Any]:
    """Return the messages up to the first user message; without messages, the prompt."""
    messages = body.get("messages", body.get("input"))
    if isinstance(messages, list):
        return list(_until_user(messages))
    return [body.get("prompt", messages)]


def _until_user(messages: Iterable[Any]) -> Iterable[Any]:
    for message in messages:
        yield message
        if isinstance(message, Mapping) and message.get("role") == "user":
            return
