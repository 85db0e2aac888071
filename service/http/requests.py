"""Reads the reasoning parameters of a request body before vLLM parses it."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.types import Receive, Scope

from service.access.middleware import replayed
from service.params import (
    BadParameter,
    Template,
    ThinkingRequest,
    read_body,
    to_vllm_body,
    wants_events,
)
from service.params.apis import BATCH, generating
from service.params.eligibility import offers_tools
from service.records.sequence import RequestContext
from service.savings.conversations import conversations_of
from service.savings.measurement import SavingsMeasurement

__all__ = ["BodyReader"]

Check = Callable[[Mapping[str, Any] | None, ThinkingRequest], None]

NOTHING = ThinkingRequest()
_BOOLEAN = TypeAdapter(bool)


class BodyReader:
    """Reads the body before the application does.

    Parameters that vLLM's schema lacks are moved to where the chat template finds them.
    """

    def __init__(self, receive: Receive, context: RequestContext, scope: Scope) -> None:
        self._receive = receive
        self._context = context
        self._endpoint = generating(scope["path"])
        engine = getattr(getattr(scope.get("app"), "state", None), "engine_client", None)
        self._template: Template = getattr(engine, "template", Template())
        """The engine's knowledge of its chat template."""
        self._check: Check | None = getattr(engine, "check_parameters", None)
        self._measures = isinstance(getattr(engine, "savings", None), SavingsMeasurement)

    async def read(self) -> Receive:
        """Read the body if the endpoint generates; return the `receive` of the application.

        Raises BadParameter for an invalid parameter.
        """
        if self._endpoint is None:
            return self._receive
        parts: list[bytes] = []
        while (message := await self._receive())["type"] == "http.request":
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                message = {**message, "body": self._read(b"".join(parts), self._endpoint)}
                break
        return replayed(message, self._receive)

    def _read(self, body: bytes, endpoint: str) -> bytes:
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            return body  # vLLM answers malformed bodies itself
        if not isinstance(parsed, dict):
            return body
        if endpoint == BATCH and _is_true(parsed.get("stream")):  # vLLM returns the last token only
            raise BadParameter("stream", parsed["stream"], "a batch cannot stream; leave it out")
        changed, asked = to_vllm_body(parsed, read_body(parsed), endpoint, self._template)
        xargs = parsed.get("vllm_xargs")
        if self._check is not None and (xargs or asked != NOTHING):
            self._check(xargs, asked)
        self._context.batch = endpoint == BATCH
        self._note(parsed, asked)
        return body if changed is None else json.dumps(changed).encode()

    def _note(self, parsed: Mapping[str, Any], asked: ThinkingRequest) -> None:
        """Note what the engine needs to know and no parameter of vLLM carries."""
        self._context.thinking_request = asked
        self._context.offers_tools = offers_tools(parsed)
        if self._measures:
            self._context.conversations = conversations_of(parsed)
        options = parsed.get("stream_options")
        usage = options.get("include_usage") if isinstance(options, dict) else None
        self._context.wants_usage = _is_true(usage)
        if wants_events(parsed, streams=_is_true(parsed.get("stream"))):
            self._context.events = []


def _is_true(value: Any) -> bool:
    """Coerce a boolean as vLLM's schemas do, which accept strings such as "false"."""
    try:
        return _BOOLEAN.validate_python(value)
    except ValidationError:
        return False
