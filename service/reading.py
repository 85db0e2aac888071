"""Reads a request's body on its way in: what it asks of the thinking."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from service.controls import BadParameter, Template, carry, read_body
from service.eligibility import offers_tools
from service.ledger import RequestLedger
from service.savings.conversations import conversation_of

__all__ = ["BodyReader"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_CONTROLLED = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/invocations",
)
"""Endpoints that generate, from bodies that may hold parameters of the thinking."""


class BodyReader:
    """Passes the request body on, and notes what it asks of the thinking.

    What vLLM's schema has no place for is put where the chat template finds it. A body that
    cannot be honoured is noted, too: the engine refuses it, after authentication.
    """

    def __init__(
        self, receive: Receive, ledger: RequestLedger, scope: MutableMapping[str, Any]
    ) -> None:
        self._receive = receive
        self._ledger = ledger
        path = scope["path"]
        self._endpoint = next((each for each in _CONTROLLED if path.endswith(each)), None)
        engine = getattr(getattr(scope.get("app"), "state", None), "engine_client", None)
        self._template: Template = getattr(engine, "template", Template())
        """What the engine that this application serves knows of its chat template."""
        self._deals = getattr(engine, "evidence", None) is not None
        self._parts: list[bytes] = []

    async def receive(self) -> Message:
        """What the application gets: the body in one piece."""
        message = await self._receive()
        if self._endpoint is None:
            return message
        while message["type"] == "http.request":
            self._parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                body, self._endpoint = self._read(b"".join(self._parts), self._endpoint), None
                return {**message, "body": body}
            message = await self._receive()
        return message

    def _read(self, body: bytes, endpoint: str) -> bytes:
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            return body  # vLLM answers malformed bodies itself
        if not isinstance(parsed, dict):
            return body
        if self._deals:
            self._ledger.conversation = conversation_of(parsed)
        options = parsed.get("stream_options")
        self._ledger.wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        try:
            self._ledger.offers_tools = offers_tools(parsed)
            told, self._ledger.asked = carry(parsed, read_body(parsed), endpoint, self._template)
        except BadParameter as error:
            self._ledger.refusal = error
            return body
        return body if told is None else json.dumps(told).encode()
