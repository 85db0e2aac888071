"""Reads a request's body on its way in: what it asks of the thinking."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from service.params import BadParameter, Template, ThinkingRequest, read_body, to_vllm_body
from service.params.apis import BATCH, generating
from service.params.eligibility import offers_tools
from service.records.sequence import RequestContext
from service.savings.conversations import conversations_of
from service.savings.measurement import SavingsMeasurement

__all__ = ["BodyReader"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Check = Callable[[Mapping[str, Any] | None, ThinkingRequest], None]

NOTHING = ThinkingRequest()
_BOOLEAN = TypeAdapter(bool)


class BodyReader:
    """Reads the body before the application does, and passes it on.

    What vLLM's schema has no place for is put where the chat template finds it.
    """

    def __init__(
        self, receive: Receive, context: RequestContext, scope: MutableMapping[str, Any]
    ) -> None:
        self._receive = receive
        self._context = context
        self._endpoint = generating(scope["path"])
        engine = getattr(getattr(scope.get("app"), "state", None), "engine_client", None)
        self._template: Template = getattr(engine, "template", Template())
        """What the engine that this application serves knows of its chat template."""
        self._check: Check | None = getattr(engine, "check_parameters", None)
        self._deals = isinstance(getattr(engine, "savings", None), SavingsMeasurement)
        self._first: Message | None = None

    async def read(self) -> None:
        """Read the body of an endpoint that generates; raises BadParameter for one that cannot be
        honoured, before anything is made of it."""
        if self._endpoint is None:
            return
        parts: list[bytes] = []
        while (message := await self._receive())["type"] == "http.request":
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                message = {**message, "body": self._read(b"".join(parts), self._endpoint)}
                break
        self._first = message

    async def receive(self) -> Message:
        """What the application gets: the body in one piece."""
        if self._first is None:
            return await self._receive()
        message, self._first = self._first, None
        return message

    def _read(self, body: bytes, endpoint: str) -> bytes:
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            return body  # vLLM answers malformed bodies itself
        if not isinstance(parsed, dict):
            return body
        if endpoint == BATCH and _is(parsed.get("stream")):  # vLLM would answer with its last token
            raise BadParameter("stream", parsed["stream"], "a batch comes whole; leave it out")
        told, asked = to_vllm_body(parsed, read_body(parsed), endpoint, self._template)
        xargs = parsed.get("vllm_xargs")
        if self._check is not None and (xargs or asked != NOTHING):
            self._check(xargs, asked)
        self._context.batch = endpoint == BATCH
        self._note(parsed, asked)
        return body if told is None else json.dumps(told).encode()

    def _note(self, parsed: Mapping[str, Any], asked: ThinkingRequest) -> None:
        """What the engine will want to know, and finds in no parameter of its own."""
        self._context.thinking_request = asked
        self._context.offers_tools = offers_tools(parsed)
        if self._deals:
            self._context.conversations = conversations_of(parsed)
        options = parsed.get("stream_options")
        self._context.wants_usage = isinstance(options, dict) and _is(options.get("include_usage"))


def _is(value: Any) -> bool:
    """As vLLM's schemas read it, which take "false" for a boolean."""
    try:
        return _BOOLEAN.validate_python(value)
    except ValidationError:
        return False
