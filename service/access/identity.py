"""The identity of a client: a digest of its API key, never the key itself."""

import hashlib
from collections.abc import Iterable

__all__ = ["caller_of"]


def caller_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a digest of the API key in an ASGI scope's headers, or b"" if there is none.

    The key is a bearer token, as OpenAI's clients send it, or else the value of ``x-api-key``, as
    Anthropic's clients send it.
    """
    found = b""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            return hashlib.sha256(key).digest() if scheme.lower() == b"bearer" else b""
        if name == b"x-api-key":
            found = hashlib.sha256(value).digest()
    return found
