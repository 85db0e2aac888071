"""ASGI middleware that puts the ``stepgrpo`` block and true reasoning tokens into responses.

vLLM's chat layer builds the responses; it has no place for either. The middleware opens a
context for each request, has its body read, and amends the JSON of the response or the last event
of its stream; chat messages get their reasoning under its second name, too. Everything else passes
through byte for byte and without delay.
"""

import json
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from vllm.exceptions import VLLMValidationError

from service.access.identity import caller_of
from service.access.refusals import Refused, answer
from service.http.requests import BodyReader, Message, Receive
from service.http.stream_errors import last_events
from service.params import BadParameter
from service.params.apis import Api, api_of
from service.records.sequence import RequestContext, current_request

__all__ = ["ResponseReporter"]

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger("vllm.stepgrpo")

_DATA, _END = b"data: ", b"\n\n"
_DONE = _DATA + b"[DONE]"
_ERROR = _DATA + b'{"error"'
# As a key: inside a JSON string its quotes would be escaped.
_KEY = b'"reasoning":'
_NUMBERS = ("cut_at", "steps", "reasoning_tokens")  # of a block, that may be missing
_REASONING = re.compile(_KEY + rb'("[^"\\]*(?:\\.[^"\\]*)*"|null)')


class ResponseReporter:
    """Wraps vLLM's application: a context for each POST request; acts on ``/v1/`` and
    ``/invocations`` only."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        context = RequestContext(caller_of(scope.get("headers", ())))
        token = current_request.set(context)
        try:
            if "/v1/" in scope["path"] or scope["path"].endswith("/invocations"):
                await self._read(context, scope, receive, send)
            else:
                await self._app(scope, receive, send)
        finally:
            current_request.reset(token)
            context.end()

    async def _read(
        self, context: RequestContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        reader = BodyReader(receive, context, scope)
        try:
            await reader.read()
        except BadParameter as error:
            await _refuse(error, send)
            return
        await self._amended(_Amender(send, context, api_of(scope["path"])), scope, reader.receive)

    async def _amended(self, amender: "_Amender", scope: Scope, receive: Receive) -> None:
        try:
            await self._app(scope, receive, amender.send)
        except Exception as error:
            cause = error.__cause__ or error  # Starlette wraps what comes after the start
            if not await amender.break_off(cause):
                raise
            if not isinstance(cause, VLLMValidationError):  # its client's fault, in its words
                _log.error("A stream of %s broke off: %s", scope["path"], cause)


async def _refuse(error: BadParameter | VLLMValidationError, send: Send) -> None:
    message = str(error.args[0])
    await answer(Refused("parameter", 400, "BadRequestError", message, error.parameter), send)


class _Amender:
    """Amends a JSON body or the last event of an event stream on its way out."""

    def __init__(self, send: Send, context: RequestContext, api: Api) -> None:
        self._send = send
        self._context = context
        self._api = api
        self._kind = b""
        self._start: Message | None = None
        self._body: list[bytes] = []
        self._held = b""
        self._signs = (*api.last, _DONE, _ERROR)
        self._before = b""  # the events that went out last, whole
        self._streaming = False  # events have gone out, and not the last
        self._early: list[Message] = []  # a stream's beginning, while it may still be refused

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._take_start(message)
        elif self._kind.startswith(b"application/json"):
            await self._take_json(message)
        elif self._early and not self._context.sequences and message.get("more_body", False):
            self._early.append(message)
        elif self._kind.startswith(b"text/event-stream"):
            await self._send_early()
            await self._take_events(message)
        else:
            await self._send(message)

    async def break_off(self, error: BaseException) -> bool:
        """Tell the client of a stream that it is over; whether there is one to tell."""
        if self._early and isinstance(error, VLLMValidationError):
            await _refuse(error, self._send)
            return True
        await self._send_early()
        if not self._streaming:
            return False
        body = self._held + last_events(error, self._api)
        await self._send({"type": "http.response.body", "body": body})
        return True

    async def _take_start(self, message: Message) -> None:
        self._kind = dict(message["headers"]).get(b"content-type", b"")
        if self._kind.startswith(b"application/json"):
            self._start = message  # its content-length is not known yet
        elif self._api.holder and self._kind.startswith(b"text/event-stream"):
            self._early = [message]  # vLLM begins it before the engine has seen the request
        else:
            await self._send(message)

    async def _send_early(self) -> None:
        early, self._early = self._early, []
        for message in early:
            if message["type"] == "http.response.start":
                await self._send(message)
            else:
                await self._take_events(message)

    async def _take_json(self, message: Message) -> None:
        self._body.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        assert self._start is not None
        plain = b"".join(self._body)
        amended = _amended(plain, self._context, self._api)
        body = self._both_names(amended)
        headers = [pair for pair in self._start["headers"] if pair[0] != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        if amended is not plain:
            headers += headers_of(self._context)
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def _take_events(self, message: Message) -> None:
        body = message.get("body", b"")
        if body:
            body = self._both_names(body)
            if self._held or self._matters(body):
                body = self._pass_events(body)
            else:  # as nearly every token's
                self._before = body
        elif not message.get("more_body", False):
            body, self._held = self._held, b""
        self._streaming = message.get("more_body", False)
        await self._send({**message, "body": body})

    def _matters(self, body: bytes) -> bool:
        """Whether one of these events may be more than passed on."""
        if not body.endswith(_END):
            return True
        for sign in self._signs:  # noqa: SIM110 - every token passes here; a generator costs most
            if sign in body:
                return True
        return False

    def _pass_events(self, body: bytes) -> bytes:
        """What goes out now; an event that may be the last is held for its successor."""
        out = b""
        for event in body.split(_END)[:-1] if body.endswith(_END) else [body]:
            whole = event + _END if body.endswith(_END) else event
            if event == _DONE:
                self._held = self._amended_event(self._held)
            out, self._held = out + self._held, b""
            if event.startswith(_ERROR):
                out += self._usage()
            self._before = event if body.endswith(_END) else b""
            if not any(sign in event for sign in self._api.last):
                out += whole
            elif self._api.waits:
                self._held = whole
            else:
                out += self._amended_event(whole)
        return out

    def _amended_event(self, event: bytes) -> bytes:
        head, data, body = event.partition(_DATA)
        if not data or not body.endswith(_END):
            return event
        holder = self._api.holder
        return head + data + _amended(body[: -len(_END)], self._context, self._api, holder) + _END

    def _usage(self) -> bytes:
        """The last chunk of a stream that was cut off and asked for its usage: before the error,
        behind which clients read no more."""
        before = self._before.removesuffix(_END).rpartition(_END)[2]
        if not (self._context.wants_usage and self._api.waits and before.startswith(_DATA)):
            return b""
        like = json.loads(before.removeprefix(_DATA))
        head = {name: like.get(name) for name in ("id", "object", "created", "model")}
        chunk = head | {"choices": [], "usage": self._context.usage()}
        return _DATA + json.dumps(chunk, separators=(",", ":")).encode() + _END

    def _both_names(self, body: bytes) -> bytes:
        if not self._api.both_names:
            return body
        at = body.find(_KEY)
        if at < 0:
            return body
        found = _REASONING.match(body, at)
        if found is None or body.find(_KEY, found.end()) >= 0:
            return _REASONING.sub(rb'\g<0>,"reasoning_content":\1', body)
        # One, as in nearly every event: spliced, this takes a fraction of the time.
        end = found.end()
        return b"".join((body[:end], b',"reasoning_content":', found[1], body[end:]))


def headers_of(context: RequestContext) -> list[tuple[bytes, bytes]]:
    """What proxies and scripts want to know without reading the body. Of several sequences only
    the sum of their reasoning tokens: reasons differ, and intervals do not add up."""
    records = [record for record in context.sequences if record.outcome is not None]
    found = {"reasoning-tokens": str(context.reasoning_tokens)} if context.reasoning_known else {}
    if len(records) == 1 and (outcome := records[0].outcome):
        found["exit-reason"] = str(outcome.reason)
        if saved := records[0].saved:
            found["saved-tokens"] = f"{saved.tokens}; low={saved.low}; high={saved.high}"
            found["saved-method"] = saved.method
    return [(f"x-stepgrpo-{name}".encode(), value.encode()) for name, value in found.items()]


def _amended(body: bytes, context: RequestContext, api: Api, holder: str | None = None) -> bytes:
    """The response with the block in it; the very same bytes when there is nothing to say."""
    block = context.as_block()
    if block is None:
        return body
    try:
        whole = json.loads(body)
    except ValueError:
        return body
    response = whole.get(holder) if holder else whole
    if not isinstance(response, dict) or "error" in whole:
        return body
    usage = response.get("usage")
    if isinstance(usage, dict) and api.tokens in usage:
        # vLLM's parsers count 0 when the prompt opened the thinking, too few where a character
        # takes several tokens, and marks; without a parser there is no count.
        details, counted = usage.get(api.details) or {}, context.reasoning_tokens
        if context.reasoning_known and (counted or "reasoning_tokens" in details):
            usage[api.details] = details | {"reasoning_tokens": counted}
    response["stepgrpo"] = block
    if isinstance(usage, dict) and context.policy_involved:
        usage["stepgrpo"] = _addable(block)  # SDKs that put a stream together keep this place
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def _addable(block: dict[str, Any]) -> dict[str, Any]:
    """The block for ``usage``, which clients add up: what is an object in one response must be one
    in all, and a number never null. langchain-openai 1.7 raises where it meets something else."""
    if "choices" in block:
        return block | {"choices": [_addable(each) for each in block["choices"]]}
    settings = {"from": {}} | block["settings"]
    found = block | {"settings": settings, "saved": block["saved"] or {}}
    unknown = {name for name in _NUMBERS if found[name] is None}
    return {name: value for name, value in found.items() if name not in unknown}
