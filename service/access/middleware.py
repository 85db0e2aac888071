"""ASGI middleware for access control: API key, body size, and the limits of the key.

vLLM requires a key below some prefixes only and leaves the rest open: inference
(``/invocations``), metrics, documentation and tokenizer. Here every route but a short list requires
one. Paths are compared as the application matches them, decoded and without the root path, never
as part of a URL built from the Host header (CVE-2026-48746).
"""

import asyncio
import contextlib
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.bodies import check_body
from service.access.error_format import ErrorRewriter, format_framework_error
from service.access.identity import caller_of
from service.access.keys import KeyRing
from service.access.limits import KeyLimits
from service.access.refusals import Refused, retry_headers, send_refusal, unauthorized
from service.params.apis import BATCH, CHAT, COMPLETIONS, MESSAGES, RESPONSES

__all__ = ["OPEN", "Access", "Rules", "replayed", "route_of"]

OPEN = frozenset({"/health", "/ready", "/ping"})
"""Routes that answer GET and HEAD without a key."""
METRICS = "/metrics"
_UNLIMITED = ("/finish-thinking", "/cancel")
"""Suffixes of routes that end running requests, which no limit may prevent."""
GENERATING = frozenset({CHAT, BATCH, COMPLETIONS, MESSAGES, RESPONSES})
"""Routes that a full server refuses before vLLM parses the body. Other routes that generate are
refused when they reach the engine."""
RETRY_SECONDS = 1.0
"""Retry-After for a key at its concurrency limit; when a sequence ends is not known."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The access rules of a server."""

    keys: KeyRing
    limits: KeyLimits
    max_body: int
    """Largest body, in bytes."""
    body_seconds: float = 120.0
    """Time limit for receiving a body."""
    open_metrics: bool = False
    """True if ``/metrics`` answers without a key."""
    metrics_at: tuple[str, int] | None = None
    """Host and port that alone serve metrics; None: the server's own port serves them."""
    isolates: bool = True
    """True if API keys share no prefix cache."""
    cors: bool = False
    """True if CORS preflight requests, which carry no key, are allowed."""
    page: bool = True
    """True if ``/`` is the page, which anyone may load; its requests need a key."""

    def allows(self, scope: Scope, caller: bytes) -> bool:
        """Return whether a request has a valid key or needs none."""
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
    """Return the path as the application matches it (Starlette's ``get_route_path``)."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    below = path.removeprefix(root)
    return below if below == "" or below.startswith("/") else path


def _is_preflight(scope: Scope) -> bool:
    """Return whether vLLM's CORS middleware will answer the request itself."""
    names = {name for name, _ in scope["headers"]}
    return {b"origin", b"access-control-request-method"} <= names


class Access:
    """Middleware for every route but ``/ready``; its `Rules` are ``app.state.args.access``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        rules: Rules = scope["app"].state.args.access
        caller = caller_of(scope["headers"])
        with contextlib.ExitStack() as held:
            try:
                if not rules.allows(scope, caller):
                    raise unauthorized()
                checked = await _check(rules, scope, receive, caller, held)
            except Refused as refused:
                await _refuse(refused, scope, send)
                return
            if checked is not None:
                await self._app(scope, checked, ErrorRewriter(send, format_framework_error).send)


async def _check(
    rules: Rules, scope: Scope, receive: Receive, caller: bytes, held: contextlib.ExitStack
) -> Receive | None:
    """Check a request against all limits and return the `receive` that replays its body.

    Reservations are released when `held` closes. Returns None if the client disconnected; raises
    Refused.
    """
    if scope["type"] != "http":
        return receive
    route = route_of(scope)
    if rules.metrics_at and route.startswith(METRICS):
        raise Refused("key", 404, "NotFoundError", "Metrics are served on a separate port.")
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return receive  # the application reads no body
    limited = rules.keys.required and not route.endswith(_UNLIMITED)
    if limited and (wait := rules.limits.take(caller)):
        raise _too_many("rate", f"{rules.limits.rate:g} requests per minute", wait)
    try:
        body = await _read_in_time(scope, receive, rules)
        if body is None:
            return None
        sequences = check_body(body, route)
        if route in GENERATING:
            await _reserve(scope["app"].state.engine_client, sequences, held)
        if limited:
            _acquire(rules.limits, caller, sequences, held)
    except Refused as refused:
        if limited and refused.cause in ("concurrency", "capacity"):
            rules.limits.refund(caller)
        raise
    return replayed({"type": "http.request", "body": body, "more_body": False}, receive)


async def _read_in_time(scope: Scope, receive: Receive, rules: Rules) -> bytes | None:
    try:
        async with asyncio.timeout(rules.body_seconds):
            return await _read(scope, receive, rules.max_body)
    except TimeoutError:
        message = f"The request's body took more than {rules.body_seconds:g} seconds."
        raise Refused("size", 408, "RequestTimeoutError", message) from None


async def _read(scope: Scope, receive: Receive, most: int) -> bytes | None:
    """Read a body of up to `most` bytes; return None if the client disconnected."""
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


async def _reserve(engine: Any, sequences: int, held: contextlib.ExitStack) -> None:
    """Reserve engine slots before vLLM parses the body: refusing must be cheap under overload."""
    if error := engine.refusal(sequences):
        status = HTTPStatus(error.http_status)
        raise Refused("capacity", status, status.phrase, error.message)
    if held.enter_context(engine.reserve(sequences)):
        await asyncio.sleep(0)  # lets other requests be refused before this one is parsed


def _acquire(limits: KeyLimits, caller: bytes, sequences: int, held: contextlib.ExitStack) -> None:
    most = limits.concurrency
    if most is not None and sequences > most:
        raise Refused(
            "concurrency",
            400,
            "BadRequestError",
            f"The request asks for {sequences} sequences (n for each prompt), and an API key of "
            f"this server may run {most} at once: lower n, or send fewer prompts",
            "n",
        )
    if not limits.acquire(caller, sequences):
        raise _too_many("concurrency", f"{most} sequences at once", RETRY_SECONDS)
    held.callback(limits.release, caller, sequences)


def replayed(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that yields `message` first, then whatever the connection brings."""
    waiting = [message]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


async def _refuse(refused: Refused, scope: Scope, send: Send) -> None:
    if scope["type"] == "http":
        await send_refusal(refused, send)
        return
    refused.count()
    await send({"type": "websocket.close", "code": 1008})  # before the handshake: HTTP 403


def _too_large(most: int) -> Refused:
    message = f"The body is larger than the limit of {most} bytes."
    return Refused("size", 413, "RequestEntityTooLargeError", message)


def _too_many(cause: Any, what: str, wait: float) -> Refused:
    message = f"This API key is limited to {what}: try again later."
    return Refused(cause, 429, "RateLimitError", message, headers=retry_headers(wait))
