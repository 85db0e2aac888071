"""The middleware that lets requests in: by their key, their size, and what their key may ask.

vLLM asks for a key below some prefixes and leaves the rest open, inference included
(``/invocations``), and metrics, documentation and tokenizer. Here all is closed but a short list. A
path is judged as the application will match it, decoded and without the root path, never by a URL
that is put together from the Host header (CVE-2026-48746).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from service.access.bodies import check_body
from service.access.error_format import OpenAIErrorFormat
from service.access.identity import caller_of
from service.access.keys import KeyRing
from service.access.limits import KeyLimits
from service.access.refusals import Refused, answer, retry_headers, unauthorized

__all__ = ["OPEN", "Access", "Rules", "route_of"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/health", "/ready", "/ping"})
"""Answer to GET and HEAD without a key."""
METRICS = "/metrics"
_FREE = ("/finish-thinking", "/cancel")
"""Ends of routes that end what runs: no limit of its key is in their way."""
GENERATING = frozenset(
    {
        "/v1/chat/completions",
        "/v1/chat/completions/batch",
        "/v1/completions",
        "/v1/messages",
        "/v1/responses",
    }
)
"""What needs the engine's seats; a full server refuses it here, before anything is made of it.
Others that do are refused when they ask the engine."""
SEAT_SECONDS = 1.0
"""When to come back, if all seats of a key are taken: nobody knows."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What one server lets in."""

    keys: KeyRing
    limits: KeyLimits
    max_body: int
    """Bytes."""
    body_seconds: float = 120.0
    """For all of them to come."""
    open_metrics: bool = False
    """``/metrics`` answers without a key."""
    metrics_at: tuple[str, int] | None = None
    """Host and port of their own: they are there alone."""
    isolates: bool = True
    """Keys share no prefix cache."""
    cors: bool = False
    """Browsers may ask, without a key, whether they may ask."""

    def allows(self, scope: Scope, caller: bytes) -> bool:
        """Whether a request needs no key or has one."""
        return self.keys.contains(caller) or not self.keys.required or self._is_open(scope)

    def _is_open(self, scope: Scope) -> bool:
        if scope["type"] != "http":
            return False
        if scope["method"] == "OPTIONS":
            return self.cors and _is_preflight(scope)
        if scope["method"] not in ("GET", "HEAD"):
            return False
        route = route_of(scope)
        return route in OPEN or (route == METRICS and self.open_metrics)


def route_of(scope: Scope) -> str:
    """The path as the application matches it (Starlette's ``get_route_path``)."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    below = path.removeprefix(root)
    return below if below == "" or below.startswith("/") else path


def _is_preflight(scope: Scope) -> bool:
    """What vLLM's CORS layer answers itself, from nothing but its own settings."""
    names = {name for name, _ in scope["headers"]}
    return {b"origin", b"access-control-request-method"} <= names


class Access:
    """Wraps all of the application but ``/ready``; finds its `Rules` in ``state.args.access``."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        rules: Rules = scope["app"].state.args.access
        caller = caller_of(scope["headers"])
        with contextlib.ExitStack() as seats:
            try:
                if not rules.allows(scope, caller):
                    raise unauthorized()
                taken = await _taken(rules, scope, receive, caller, seats)
            except Refused as refused:
                await _refuse(refused, scope, send)
                return
            if taken is not None:
                await self._app(scope, taken, OpenAIErrorFormat(send).send)


async def _taken(
    rules: Rules, scope: Scope, receive: Receive, caller: bytes, seats: contextlib.ExitStack
) -> Receive | None:
    """What the application receives, once all was looked at; None if the client has left. Raises
    Refused."""
    if scope["type"] != "http":
        return receive
    route = route_of(scope)
    if rules.metrics_at and route.startswith(METRICS):
        raise Refused("key", 404, "NotFoundError", "Metrics are served on a port of their own.")
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return receive  # nobody reads its body
    limited = rules.keys.required and not route.endswith(_FREE)
    if limited and (wait := rules.limits.take(caller)):
        raise _too_many("rate", f"{rules.limits.rate:g} requests per minute", wait)
    try:
        body = await _body_in_time(scope, receive, rules)
        if body is None:
            return None
        sequences = check_body(body, route)
        if route in GENERATING:
            await _expect(scope["app"].state.engine_client, sequences, seats)
        if limited:
            _seat(rules.limits, caller, sequences, seats)
    except Refused as refused:
        if limited and refused.cause in ("concurrency", "capacity"):
            rules.limits.refund(caller)
        raise
    return _Replayed(body, receive).receive


async def _body_in_time(scope: Scope, receive: Receive, rules: Rules) -> bytes | None:
    try:
        async with asyncio.timeout(rules.body_seconds):
            return await _body(scope, receive, rules.max_body)
    except TimeoutError:
        message = f"The request's body took more than {rules.body_seconds:g} seconds."
        raise Refused("size", 408, "RequestTimeoutError", message) from None


async def _body(scope: Scope, receive: Receive, most: int) -> bytes | None:
    """The whole body, which is never kept beyond `most` bytes; None if the client has left."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    if length.isdigit() and int(length[:20]) > most:
        raise _too_large(most)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise _too_large(most)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _expect(engine: Any, sequences: int, seats: contextlib.ExitStack) -> None:
    """Under overload most requests are refused, so that must cost little."""
    if error := engine.refusal(sequences):
        status = HTTPStatus(error.http_status)
        raise Refused("capacity", status, status.phrase, error.message)
    if seats.enter_context(engine.reserve(sequences)):
        await asyncio.sleep(0)  # whoever came with it is refused before it takes its time


def _seat(limits: KeyLimits, caller: bytes, sequences: int, seats: contextlib.ExitStack) -> None:
    most = limits.concurrency
    if most is not None and sequences > most:
        raise Refused(
            "concurrency",
            400,
            "BadRequestError",
            f"The request asks for {sequences} sequences (n for each prompt), and each API key of "
            f"this server has {most} at once: lower n, or send fewer prompts",
            "n",
        )
    if not limits.acquire(caller, sequences):
        raise _too_many("concurrency", f"{most} sequences at once", SEAT_SECONDS)
    seats.callback(limits.release, caller, sequences)


class _Replayed:
    """A body that was read already, then what the connection says."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def receive(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def _refuse(refused: Refused, scope: Scope, send: Send) -> None:
    if scope["type"] == "http":
        await answer(refused, send)
        return
    refused.count()
    await send({"type": "websocket.close", "code": 1008})  # before it was accepted: HTTP 403


def _too_large(most: int) -> Refused:
    message = f"The body is larger than the {most} bytes that this server takes."
    return Refused("size", 413, "RequestEntityTooLargeError", message)


def _too_many(cause: Any, what: str, wait: float) -> Refused:
    message = f"This API key has {what}: try again later."
    return Refused(cause, 429, "RateLimitError", message, headers=retry_headers(wait))
