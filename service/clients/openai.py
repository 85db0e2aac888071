"""An HTTP client with timeout, retries and circuit breaker for OpenAI-compatible servers.

The server may fail in any way. Its address and key come from the operator, never from a request.
"""

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import httpx

from service.clients.circuit_breaker import CircuitBreaker
from stepgrpo_core import InvalidSetting

__all__ = [
    "ATTEMPTS",
    "MAX_BYTES",
    "Address",
    "FailureReason",
    "OpenAIClient",
    "RequestFailed",
    "RequestRejected",
]

_log = logging.getLogger("vllm.stepgrpo")

ATTEMPTS = 3
BACKOFF_SECONDS = 0.1  # doubles with every attempt; half of it is random
MAX_BYTES = 2**20  # of a response
CONNECTIONS = 64
RETRYABLE = {408, 425, 429, 500, 502, 503, 504}
REJECTED = {400, 422}  # the server does not accept a field of the request

FailureReason = Literal["timeout", "unreachable", "refused", "garbage", "paused"]
"""Reason for no response; garbage: it is not usable; paused: the circuit breaker is open."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Address:
    """Address, timeout and key of a server."""

    url: str
    """Base URL of its API, such as http://judge:8000/v1."""
    timeout: float
    """Seconds for one call of `OpenAIClient.run`, retries included."""
    key: str | None = field(default=None, repr=False)

    def check(self, name: str, variable: str) -> None:
        """Raise InvalidSetting if the URL, from option `name`, or the key, from environment
        variable `variable`, is invalid."""
        url = _parsed(self.url)
        if url is None or url.scheme not in ("http", "https") or not url.host or url.userinfo:
            shown = "(with a password in it)" if url and url.userinfo else self.url
            raise InvalidSetting(
                name, shown, f"use http://HOST:PORT/v1; a key goes into {variable}"
            )
        if self.key and not (self.key.isascii() and self.key.isprintable()):
            raise InvalidSetting(variable, "...", "use printable ASCII characters")


def _parsed(url: str) -> httpx.URL | None:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL:
        return None


class RequestFailed(Exception):
    """The request failed; `reason` says why."""

    def __init__(self, reason: FailureReason) -> None:
        self.reason = reason


class _RetryableError(RequestFailed):
    """The request failed, and another attempt may succeed."""


class RequestRejected(RequestFailed):
    """The server rejected the request format; another format may succeed."""


class OpenAIClient:
    """A client of one server, called `name` in the log. Use and close it in one event loop."""

    def __init__(
        self,
        address: Address,
        name: str,
        *,
        breaker: CircuitBreaker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = address.timeout
        self._name = name
        self._breaker = breaker or CircuitBreaker()
        self._clock = clock
        headers = {"Accept-Encoding": "identity"}  # so that MAX_BYTES is the decoded size
        if address.key:
            headers["Authorization"] = f"Bearer {address.key}"
        self._http = httpx.AsyncClient(
            base_url=address.url.rstrip("/") + "/",
            headers=headers,
            timeout=address.timeout,
            limits=httpx.Limits(max_connections=CONNECTIONS),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work` within the timeout and return its result. Raises RequestFailed, also when the
        circuit breaker is open."""
        if not self._breaker.allows(self._clock()):
            raise RequestFailed("paused")
        try:
            async with asyncio.timeout(self._timeout):
                result = await work()
        except RequestFailed as failure:
            self._failed(failure.reason)
            raise
        except (TimeoutError, httpx.TimeoutException) as error:
            self._failed("timeout")
            raise RequestFailed("timeout") from error
        if not self._breaker.closed:
            _log.info("The %s at %s responds again.", self._name, self._http.base_url.host)
        self._breaker.record_success()
        return result

    def _failed(self, reason: FailureReason) -> None:
        was_closed = self._breaker.closed
        self._breaker.record_failure(self._clock())
        if was_closed and not self._breaker.closed:
            host = self._http.base_url.host
            _log.warning("The %s at %s fails (%s); calls are paused.", self._name, host, reason)

    async def request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        """Send a request and return the JSON of its response. Raises RequestFailed."""
        for attempt in range(ATTEMPTS - 1):
            with contextlib.suppress(_RetryableError):
                return await self._attempt(method, path, body)
            await asyncio.sleep(BACKOFF_SECONDS * 2**attempt * random.uniform(0.5, 1))
        return await self._attempt(method, path, body)

    async def _attempt(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        try:
            async with self._http.stream(method, path, json=body) as response:
                if response.status_code in REJECTED:
                    raise RequestRejected("refused")
                if response.status_code != httpx.codes.OK:
                    retryable = response.status_code in RETRYABLE
                    raise (_RetryableError if retryable else RequestFailed)("refused")
                content = b""
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > MAX_BYTES:
                        raise RequestFailed("garbage")
        except httpx.TimeoutException:
            raise
        except httpx.HTTPError as error:
            raise _RetryableError("unreachable") from error
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RequestFailed("garbage") from error
