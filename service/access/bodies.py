"""What a request's body may hold, found out before anything is built of it.

Depth and number of its parts are counted in the bytes: parsers recurse, and a body of brackets
becomes a hundred times its size. What passes is little enough to be parsed.
"""

import json
from typing import Any

from service.access.refusals import Refused
from service.access.sequences import count_prompts, is_token_ids, read_n

__all__ = ["BATCH", "MAX_DEPTH", "MAX_ENTRIES", "MAX_N", "MAX_PARTS", "check_body"]

BATCH = "/v1/chat/completions/batch"
"""Its ``messages`` are conversations, each with messages of its own."""

MAX_DEPTH = 64
"""Objects and arrays inside each other."""
MAX_PARTS = 65_536
"""Objects and arrays in all."""
MAX_N = 128
"""Completions of one prompt."""
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
"""Entries that a parameter may have; a prompt that is one list of token ids is as long as it is."""
MAX_CONVERSATIONS = MAX_ENTRIES["prompt"]
"""Conversations of a batch."""
_SCORING = "/generative_scoring"
_ONE_SEQUENCE = ("/v1/messages", "/v1/responses")
"""Ends of routes whose requests have no ``n``."""

_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


def check_body(body: bytes, route: str = "") -> int:
    """How many sequences a JSON body asks for at `route`, 1 where it does not say; raises Refused.

    Values count as vLLM's request schemas read them: ``"n": "3"`` asks for three. What is not JSON
    is left to who reads it.
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
    allowed = 0  # brackets that never close, and make no JSON, but a parser goes down with them
    for _ in range(MAX_DEPTH):
        within = brackets.replace(b"[]", b"")
        if len(within) == len(brackets):
            allowed = MAX_DEPTH
            break
        brackets = within
    if brackets.count(b"[") > allowed:
        raise _refused(f"The body's JSON is nested more than {MAX_DEPTH} deep.")


def _brackets(body: bytes) -> bytes:
    """Those outside of strings, as if of one kind."""
    if b"\\" in body:  # which escapes what follows it, itself included
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2]).translate(_ONE_KIND, _NO_BRACKET)


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
