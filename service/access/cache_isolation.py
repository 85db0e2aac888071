"""Prefix cache isolation: response times of one API key reveal nothing about prompts of another.

vLLM shares its prefix cache between all clients, and a cached prefix is answered sooner. vLLM's
countermeasure, a request's ``cache_salt``, is left to the client. Here the server adds a salt per
API key to every prompt that goes to the engine: requests, probes and answers alike.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

from service.records.sequence import current_request

__all__ = ["IsolatedEngine"]


class IsolatedEngine:
    """Wraps vLLM's engine client and salts the prompts of each API key.

    The salts derive from a secret that is random at every start, so clients cannot guess them.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._secret = secrets.token_bytes(32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def generate(self, prompt: Any, *args: Any, **options: Any) -> Any:
        """Call vLLM's method with a prompt salted for the current request."""
        return self._inner.generate(self._salted(prompt), *args, **options)

    def encode(self, prompt: Any, *args: Any, **options: Any) -> Any:
        """Call vLLM's method with a prompt salted for the current request."""
        return self._inner.encode(self._salted(prompt), *args, **options)

    def _salted(self, prompt: Any) -> Any:
        context = current_request.get()
        if context is None or not context.caller or not isinstance(prompt, Mapping):
            return prompt
        own = str(prompt.get("cache_salt") or "").encode()
        salt = hmac.new(self._secret, context.caller + own, hashlib.sha256).hexdigest()
        return {**prompt, "cache_salt": salt}
