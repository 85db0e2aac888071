"""Who makes a request: what its API key says, and not the key."""

import hashlib
from collections.abc import Iterable

__all__ = ["caller_of"]


def caller_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A digest of the API key in an ASGI scope's headers; b"" without one.

    It is a bearer token, as OpenAI's clients send it, or in ``x-api-key``, as Anthropic's do, if
    nothing else authorizes.
    """
    found = b""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            return hashlib.sha256(key).digest() if scheme.lower() == b"bearer" else b""
        if name == b"x-api-key":
            found = hashlib.sha256(value).digest()
    return found
