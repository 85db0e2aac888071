"""ASGI middleware that adds the ``stepgrpo`` block and exact reasoning token counts to responses.

vLLM's chat layer builds the responses and has no field for either. The middleware opens a context
for each request, reads its parameters, and amends the JSON of the response or the last event of its
stream. Chat messages also get their reasoning as ``reasoning_content``. Everything else passes
through unchanged and without delay.
"""

import json
import logging
import re
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from vllm.exceptions import VLLMValidationError

from service.access.identity import caller_of
from service.access.refusals import Refused, send_refusal
from service.http.requests import BodyReader
from service.http.stream_errors import error_events
from service.params import BadParameter
from service.params.apis import Api, api_of
from service.records.sequence import RequestContext, current_request

__all__ = ["ResponseReporter"]

_log = logging.getLogger("vllm.stepgrpo")

_DATA, _END = b"data: ", b"\n\n"
_DONE = _DATA + b"[DONE]"
_OBJECT_END = b"}" + _END
_ERROR = _DATA + b'{"error"'
# Matches keys only: inside a JSON string the quotes would be escaped.
_KEY = b'"reasoning":'
_NUMBERS = ("cut_at", "steps", "reasoning_tokens")  # fields of a block that may be null
_REASONING = re.compile(_KEY + rb'("[^"\\]*(?:\\.[^"\\]*)*"|null)')


class ResponseReporter:
    """Middleware that opens a context for every POST request, and amends the responses of ``/v1/``
    and ``/invocations``."""

    def __init__(self, app: ASGIApp) -> None:
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
        try:
            receive = await BodyReader(receive, context, scope).read()
        except BadParameter as error:
            await _refuse(error, send)
            return
        await self._amend(_Amender(send, context, api_of(scope["path"])), scope, receive)

    async def _amend(self, amender: "_Amender", scope: Scope, receive: Receive) -> None:
        try:
            await self._app(scope, receive, amender.send)
        except Exception as error:
            cause = error.__cause__ or error  # Starlette wraps errors after the response start
            if not await amender.break_off(cause):
                raise
            if not isinstance(cause, VLLMValidationError):  # an invalid request is not logged
                _log.error("A stream of %s broke off: %s", scope["path"], cause)


async def _refuse(error: BadParameter | VLLMValidationError, send: Send) -> None:
    message = str(error.args[0])
    await send_refusal(Refused("parameter", 400, "BadRequestError", message, error.parameter), send)


class _Amender:
    """Amends a JSON body or the last event of an event stream."""

    def __init__(self, send: Send, context: RequestContext, api: Api) -> None:
        self._send = send
        self._context = context
        self._api = api
        self._kind = b""
        self._start: Message | None = None
        self._body: list[bytes] = []
        self._held = b""
        self._markers = (*api.last, _DONE, _ERROR)
        self._before = b""  # the events sent last, if complete
        self._streaming = False  # events were sent, but not the last one
        self._early: list[Message] = []  # start of a stream that may still be refused

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
        """End a stream with an error event; return False if no stream has started."""
        if self._early and isinstance(error, VLLMValidationError):
            await _refuse(error, self._send)
            return True
        await self._send_early()
        if not self._streaming:
            return False
        body = self._held + error_events(error, self._api)
        await self._send({"type": "http.response.body", "body": body})
        return True

    async def _take_start(self, message: Message) -> None:
        self._kind = dict(message["headers"]).get(b"content-type", b"")
        if self._kind.startswith(b"application/json"):
            self._start = message  # held back: its content-length will change
        elif self._api.holder and self._kind.startswith(b"text/event-stream"):
            self._early = [message]  # vLLM starts it before the engine has the request
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
            if self._context.events:
                body = _with_events(body, self._context.events)
            body = self._both_names(body)
            if self._held or self._matters(body):
                body = self._pass_events(body)
            else:  # the case for nearly every token
                self._before = body
        elif not message.get("more_body", False):
            body, self._held = self._held, b""
        self._streaming = message.get("more_body", False)
        if body is not message.get("body"):
            message = {**message, "body": body}
        await self._send(message)

    def _matters(self, body: bytes) -> bool:
        """Return whether one of these events may need a change.

        The last events of a response come after a sequence of it has ended, and errors alone.
        """
        if not body.endswith(_END) or body.startswith(_ERROR):
            return True
        if self._context.all_run:
            return False
        return any(marker in body for marker in self._markers)

    def _pass_events(self, body: bytes) -> bytes:
        """Return what to send now; an event that may be the last is held until the next one."""
        out = b""
        for event in body.split(_END)[:-1] if body.endswith(_END) else [body]:
            whole = event + _END if body.endswith(_END) else event
            if event == _DONE:
                self._held = self._amended_event(self._held)
            out, self._held = out + self._held, b""
            if event.startswith(_ERROR):
                out += self._usage()
            self._before = event if body.endswith(_END) else b""
            if not any(marker in event for marker in self._api.last):
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
        """Return the usage chunk of a stream that breaks off, if it asked for one. It precedes the
        error, where clients stop reading."""
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
        # Nearly every event has a single key, and splicing is much faster than a substitution.
        end = found.end()
        return b"".join((body[:end], b',"reasoning_content":', found[1], body[end:]))


def _with_events(body: bytes, events: list[dict[str, Any]]) -> bytes:
    """Return the chunk with the events that happened before it, and take these from the list.

    They become a field of the chunk's object, which clients that do not know it ignore. A body
    without an object leaves them for the next one.
    """
    head, end, rest = body.partition(_OBJECT_END)
    if not end:
        return body
    text = json.dumps(events, ensure_ascii=False, separators=(",", ":")).encode()
    events.clear()
    separator = b"" if head.endswith(b"{") else b","
    return b"".join((head, separator, b'"stepgrpo_events":', text, end, rest))


def headers_of(context: RequestContext) -> list[tuple[bytes, bytes]]:
    """Return response headers for proxies and scripts that do not parse the body.

    Several sequences have only the sum of their reasoning tokens: their exit reasons differ, and
    their intervals cannot be added.
    """
    records = [record for record in context.sequences if record.outcome is not None]
    found = {"reasoning-tokens": str(context.reasoning_tokens)} if context.reasoning_known else {}
    if len(records) == 1 and (outcome := records[0].outcome):
        found["exit-reason"] = str(outcome.reason)
        if saved := records[0].saved:
            found["saved-tokens"] = f"{saved.tokens}; low={saved.low}; high={saved.high}"
            found["saved-method"] = saved.method
    return [(f"x-stepgrpo-{name}".encode(), value.encode()) for name, value in found.items()]


def _amended(body: bytes, context: RequestContext, api: Api, holder: str | None = None) -> bytes:
    """Return the response with the block, or `body` itself if there is nothing to add."""
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
        # vLLM's parsers count 0 if the prompt opened the thinking, too few if a character takes
        # several tokens, and count the markers; without a parser there is no count.
        details, counted = usage.get(api.details) or {}, context.reasoning_tokens
        if context.reasoning_known and (counted or "reasoning_tokens" in details):
            usage[api.details] = details | {"reasoning_tokens": counted}
    response["stepgrpo"] = block
    if isinstance(usage, dict) and context.policy_involved:
        usage["stepgrpo"] = _addable(block)  # SDKs that assemble streams keep `usage`
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def _addable(block: dict[str, Any]) -> dict[str, Any]:
    """Return the block for ``usage``, which clients sum over responses: objects must always be
    objects, and numbers never null, or langchain-openai 1.7 raises."""
    if "choices" in block:
        return block | {"choices": [_addable(each) for each in block["choices"]]}
    settings = {"from": {}} | block["settings"]
    found = block | {"settings": settings, "saved": block["saved"] or {}}
    unknown = {name for name in _NUMBERS if found[name] is None}
    return {name: value for name, value in found.items() if name not in unknown}
