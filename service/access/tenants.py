"""API keys share no prefix cache: how fast a prompt is answered tells nobody what others asked.

vLLM caches what prompts have in common, for all who send it, and a prefix that is cached answers
sooner. Its remedy is a salt in a request's ``cache_salt``, which only its client can set. Here the
server adds one to whatever goes to the engine for an API key: prompts, probes and answers alike.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

from service.records.sequence import current_request

__all__ = ["IsolatedEngine"]


class IsolatedEngine:
    """vLLM's engine client; prompts of each API key get a salt of its own.

    The salts are new with every start, and unknown to all: they cannot be guessed.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._secret = secrets.token_bytes(32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def generate(self, prompt: Any, *args: Any, **options: Any) -> Any:
        """As vLLM's, for whoever's request is being served."""
        return self._inner.generate(self._salted(prompt), *args, **options)

    def encode(self, prompt: Any, *args: Any, **options: Any) -> Any:
        """As vLLM's, for whoever's request is being served."""
        return self._inner.encode(self._salted(prompt), *args, **options)

    def _salted(self, prompt: Any) -> Any:
        context = current_request.get()
        if context is None or not context.caller or not isinstance(prompt, Mapping):
            return prompt
        own = str(prompt.get("cache_salt") or "").encode()
        salt = hmac.new(self._secret, context.caller + own, hashlib.sha256).hexdigest()
        return {**prompt, "cache_salt": salt}
