"""``POST /v1/chat/completions/{id}/finish-thinking``: a client that wants its answer now.

The id is the one in every chunk of the stream. Only the API key that made the request can end its
thinking; to any other it does not exist. The routes lie under ``/v1/``, where vLLM asks for a key
if the server has any.
"""

import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from http import HTTPStatus
from typing import Any, Protocol

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from service.ledger import current_ledger

__all__ = ["CannotFinish", "Finishing", "Routes", "Thinker"]

App = Callable[..., Awaitable[None]]


class CannotFinish(Exception):
    """The thinking of a request cannot be closed from outside; says why and what would help."""


class Thinker(Protocol):
    """A running request to the engine."""

    def finish_thinking(self) -> int:
        """Close what thinks, soon; how many sequences that is. Raises CannotFinish."""


class Finishing:
    """The running requests by who made them and the id their client knows.

    Ids may come from clients (X-Request-Id) and repeat: all of one caller's are meant then.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[bytes, str], list[Thinker]] = {}

    @contextlib.contextmanager
    def running(self, caller: bytes, request_id: str, thinker: Thinker) -> Iterator[None]:
        """Within it, `thinker` can be asked to finish."""
        keys = [(caller, each) for each in _client_ids(request_id)]
        for key in keys:
            self._running.setdefault(key, []).append(thinker)
        try:
            yield
        finally:
            for key in keys:
                self._running[key].remove(thinker)
                if not self._running[key]:
                    del self._running[key]

    def finish(self, caller: bytes, client_id: str) -> int | None:
        """How many sequences close their thinking; None if this caller has no such request.

        Raises CannotFinish where none of its parts can.
        """
        thinkers = self._running.get((caller, client_id))
        if thinkers is None:
            return None
        closed, refusals = 0, list[CannotFinish]()
        for thinker in thinkers:
            try:
                closed += thinker.finish_thinking()
            except CannotFinish as refusal:
                refusals.append(refusal)
        if len(refusals) == len(thinkers):
            raise refusals[0]
        return closed

    def __len__(self) -> int:
        return len(self._running)


def _client_ids(request_id: str) -> set[str]:
    """The id that the client sees. vLLM numbers the engine's requests of one HTTP request."""
    numbered = re.fullmatch(r"(cmpl-.+)-\d+|(.+)_\d+", request_id, re.DOTALL)
    return {request_id} | ({numbered[1] or numbered[2]} if numbered else set())


_router = APIRouter(tags=["stepgrpo"])


def _error(status: HTTPStatus, kind: str, message: str) -> JSONResponse:
    error = {"message": message, "type": kind, "param": "id", "code": int(status)}
    return JSONResponse({"error": error}, status)


@_router.post("/v1/chat/completions/{id}/finish-thinking")
@_router.post("/v1/completions/{id}/finish-thinking")
@_router.post("/v1/responses/{id}/finish-thinking")
@_router.post("/v1/messages/{id}/finish-thinking")
async def finish_thinking(id: str, request: Request) -> JSONResponse:  # noqa: A002
    """End the thinking of a running request: its answer begins within a few tokens.

    Asked again, or while it answers already, it changes nothing.
    """
    ledger = current_ledger.get()
    finishing: Finishing = request.app.state.engine_client.finishing
    try:
        closed = finishing.finish(ledger.caller if ledger else b"", id)
    except CannotFinish as refusal:
        return _error(HTTPStatus.CONFLICT, "ConflictError", str(refusal))
    if closed is None:
        message = "No request of this API key that still runs has this id."
        return _error(HTTPStatus.NOT_FOUND, "NotFoundError", message)
    return JSONResponse({"id": id, "object": "thinking.finished", "sequences": closed})


class Routes:
    """ASGI middleware that adds the routes, when the application starts."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            scope["app"].include_router(_router)
        await self._app(scope, receive, send)
