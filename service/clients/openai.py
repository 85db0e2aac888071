"""Another server with an OpenAI-compatible API: a judge, or one that runs pairs.

It may fail in every way, and nothing here waits for it longer than it was given. Its address and
key come from the operator; clients choose neither.
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
BACKOFF_SECONDS = 0.1  # doubles, and half of it is drawn
MAX_BYTES = 2**20  # of a response
CONNECTIONS = 64
RETRYABLE = {408, 425, 429, 500, 502, 503, 504}  # another attempt may get through
REJECTED = {400, 422}

FailureReason = Literal["timeout", "unreachable", "refused", "garbage", "paused"]
"""Why there is no answer; paused: the breaker is open."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and how long it may take."""

    url: str
    """Base of its API, such as http://judge:8000/v1."""
    timeout: float
    """Seconds for one piece of work, attempts included."""
    key: str | None = field(default=None, repr=False)

    def check(self, name: str, variable: str) -> None:
        """Raises InvalidSetting for an address in option `name`, or a key in `variable`, that
        cannot be used."""
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
    """There is no answer."""

    def __init__(self, reason: FailureReason) -> None:
        self.reason = reason


class _RetryableError(RequestFailed):
    """Another attempt may get one."""


class RequestRejected(RequestFailed):
    """Other words may get one."""


class OpenAIClient:
    """Talks to one server, `name` in the log. Use it in one event loop, and close it there."""

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
        headers = {"Accept-Encoding": "identity"}  # MAX_BYTES are what arrives
        if address.key:
            headers["Authorization"] = f"Bearer {address.key}"
        self._http = httpx.AsyncClient(
            base_url=address.url.rstrip("/") + "/",
            headers=headers,
            timeout=address.timeout,
            limits=httpx.Limits(max_connections=CONNECTIONS),
        )

    async def close(self) -> None:
        """Free the connections."""
        await self._http.aclose()

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` brings, in the time there is and unless the breaker is open; raises
        RequestFailed."""
        if not self._breaker.allows(self._clock()):
            raise RequestFailed("paused")
        try:
            async with asyncio.timeout(self._timeout):
                found = await work()
        except RequestFailed as failure:
            self._failed(failure.reason)
            raise
        except (TimeoutError, httpx.TimeoutException) as error:
            self._failed("timeout")
            raise RequestFailed("timeout") from error
        if not self._breaker.closed:
            _log.info("The %s at %s answers again.", self._name, self._http.base_url.host)
        self._breaker.record_success()
        return found

    def _failed(self, reason: FailureReason) -> None:
        was_closed = self._breaker.closed
        self._breaker.record_failure(self._clock())
        if was_closed and not self._breaker.closed:
            host = self._http.base_url.host
            _log.warning(
                "The %s at %s fails (%s): it is asked less often.", self._name, host, reason
            )

    async def request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        """The JSON of a response; raises RequestFailed, also RequestRejected."""
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
