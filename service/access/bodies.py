"""Limits on a request body, checked before it is parsed.

Nesting depth and the number of objects and arrays are counted in the raw bytes: JSON parsers
recurse, and a body of nothing but brackets takes a hundred times its size once it is parsed.
"""

import json
from typing import Any

from service.access.refusals import Refused
from service.access.sequences import count_prompts, is_token_ids, read_n
from service.params.apis import BATCH, MESSAGES, RESPONSES

__all__ = ["MAX_DEPTH", "MAX_ENTRIES", "MAX_N", "MAX_PARTS", "check_body"]

MAX_DEPTH = 64
"""Levels of nested objects and arrays."""
MAX_PARTS = 65_536
"""Total number of objects and arrays."""
MAX_N = 128
"""Completions per prompt."""
MAX_ENTRIES = {
    "messages": 4096,
    "input": 4096,
    "prompt": 2048,
    "items": 2048,
    "tools": 1024,
    "logit_bias": 4096,
    "stop": 64,
    "stop_sequences": 64,
    "stop_token_ids": 1024,
    "bad_words": 1024,
}
"""Most entries of each parameter. A prompt that is one list of token ids is exempt."""
MAX_CONVERSATIONS = MAX_ENTRIES["prompt"]
"""Conversations in a batch request, whose ``messages`` is a list of conversations."""
_SCORING = "/generative_scoring"
_ONE_SEQUENCE = (MESSAGES, RESPONSES)
"""Routes whose requests have no ``n``."""

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")


def check_body(body: bytes, route: str = "") -> int:
    """Return the number of sequences that a JSON body requests at `route`, 1 by default.

    Values are coerced as vLLM's request schemas do: ``"n": "3"`` requests three. Malformed JSON is
    left to vLLM. Raises Refused.
    """
    if json.detect_encoding(body) not in ("utf-8", "utf-8-sig"):
        raise _refused("The body's JSON must be in UTF-8.")
    if body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
        return 1
    _check_nesting(_brackets(body))
    try:
        parsed = json.loads(body)
    except ValueError:
        return 1
    return _sequences(parsed, route) if isinstance(parsed, dict) else 1


def _check_nesting(brackets: bytes) -> None:
    if len(brackets) > 2 * MAX_PARTS:
        raise _refused(f"The body holds more than {MAX_PARTS} objects and arrays.")
    allowed = 0  # brackets left over never close: invalid JSON, but a parser recurses into them
    for _ in range(MAX_DEPTH):
        inner = brackets.replace(b"[]", b"")
        if len(inner) == len(brackets):
            allowed = MAX_DEPTH
            break
        brackets = inner
    if brackets.count(b"[") > allowed:
        raise _refused(f"The body's JSON is nested more than {MAX_DEPTH} deep.")


def _brackets(body: bytes) -> bytes:
    """Return the brackets outside of strings, with braces turned into square brackets."""
    if b"\\" in body:  # a backslash escapes a quote, or another backslash
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2]).translate(_BRACES_TO_BRACKETS, _NOT_BRACKETS)


def _sequences(parsed: dict[str, Any], route: str) -> int:
    inner = parsed.get("sampling_params")
    parts = (parsed, inner if isinstance(inner, dict) else {})
    for part in parts:
        for name, most in MAX_ENTRIES.items():
            _check_length(name, part.get(name), most)
    if route.endswith(BATCH):
        return _conversations(parsed.get("messages"))
    if route.endswith(_ONE_SEQUENCE):
        return 1
    if route.endswith(_SCORING):
        items = parsed.get("items")
        return max(len(items), 1) if isinstance(items, list) else 1
    return max(map(_n, parts)) * count_prompts(parsed)


def _conversations(messages: Any) -> int:
    if not isinstance(messages, list):
        return 1
    _check_length("messages", messages, MAX_CONVERSATIONS)
    for each in messages:
        _check_length("messages", each, MAX_ENTRIES["messages"])
    return max(len(messages), 1)


def _n(part: dict[str, Any]) -> int:
    n = read_n(part.get("n"))
    if n > MAX_N:
        raise _refused(f"n={n} is more than the {MAX_N} that this server takes.", "n")
    return n


def _check_length(name: str, value: Any, most: int) -> None:
    if name in ("prompt", "input") and is_token_ids(value):
        return
    if isinstance(value, list | dict) and len(value) > most:
        what = f"{name} has {len(value)} entries, and this server takes {most}."
        raise _refused(what, name)


def _refused(message: str, param: str | None = None) -> Refused:
    return Refused("shape", 400, "BadRequestError", message, param)
