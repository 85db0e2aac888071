"""Our own routes in vLLM's application. Who has no key does not get here, if the server has any."""

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import REGISTRY

from service.access.identity import caller_of
from service.access.scrape import asks_openmetrics, metrics_app
from service.http.openapi import TITLE, describe, own_version
from service.load.running import CannotFinish, RunningRequests
from service.records.recent import KEPT_SECONDS, RecentResponses
from service.records.sequence import current_request
from service.savings.measurement import SavingsMeasurement
from service.savings.report import as_csv, as_json, read_estimates

__all__ = ["Routes"]

App = Callable[..., Awaitable[None]]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "A parameter that cannot be honoured"},
    401: {"description": "No API key of this server"},
}
_router = APIRouter(tags=["stepgrpo"], responses=_REFUSALS)
_finishes = APIRouter(
    responses={
        404: {"description": "No request of this API key that runs has this id"},
        409: {"description": "Its thinking cannot be closed"},
    }
)


@_router.get("/v1/stepgrpo/savings", responses={200: {"content": {"text/csv": {}}}})
def savings(request: Request, format: Literal["json", "csv"] = "json") -> Response:  # noqa: A002
    """What exits saved, by model and policy, as the holdout and paired runs show it."""
    savings = request.app.state.engine_client.savings
    measured = isinstance(savings, SavingsMeasurement)
    rows = read_estimates(savings.store) if measured else []
    complaints = savings.store.warnings() if measured else []
    if format == "csv":
        return PlainTextResponse(as_csv(rows), media_type="text/csv")
    return JSONResponse(as_json(rows, complaints))


@_router.head("/v1/models", include_in_schema=False)
def has_models() -> Response:
    """Whether there are models, which GET of vLLM's lists."""
    return Response()


@_router.head("/v1/models/{id:path}", include_in_schema=False)
@_router.get("/v1/models/{id:path}", include_in_schema=False)
async def model(id: str, request: Request) -> JSONResponse:  # noqa: A002
    """One of the served models, as vLLM's list has it."""
    listed = await request.app.state.openai_serving_models.show_available_models()
    for each in listed.data:
        if each.id == id:
            return JSONResponse(each.model_dump())
    served = ", ".join(each.id for each in listed.data)
    message = f"The model {id[:100]!r} is not served: use one of {served}."
    return _error(HTTPStatus.NOT_FOUND, "NotFoundError", message, "model")


def _error(status: HTTPStatus, kind: str, message: str, param: str = "id") -> JSONResponse:
    error = {"message": message, "type": kind, "param": param, "code": int(status)}
    return JSONResponse({"error": error}, status)


@_router.get(
    "/v1/stepgrpo/responses/{id}",
    responses={404: {"description": "No response of this API key ended lately with this id"}},
)
async def response_of(id: str, request: Request) -> JSONResponse:  # noqa: A002
    """What exits did to a response of this API key, for some minutes after its end: the block that
    clients do not find in streams."""
    recent: RecentResponses = request.app.state.engine_client.recent
    block = recent.find(caller_of(request.headers.raw), id)
    if block is None:
        message = (
            f"No response of this API key with this id ended in the last {KEPT_SECONDS / 60:g} "
            "minutes: ask with the key that made it, once its stream has ended."
        )
        return _error(HTTPStatus.NOT_FOUND, "NotFoundError", message)
    return JSONResponse({"id": id, "object": "stepgrpo.response", "stepgrpo": block})


@_finishes.post("/v1/chat/completions/{id}/finish-thinking")
@_finishes.post("/v1/completions/{id}/finish-thinking")
@_finishes.post("/v1/responses/{id}/finish-thinking")
@_finishes.post("/v1/messages/{id}/finish-thinking")
async def finish_thinking(id: str, request: Request) -> JSONResponse:  # noqa: A002
    """End the thinking of a running request: its answer begins within a few tokens.

    Asked again, or while it answers already, it changes nothing.
    """
    context = current_request.get()
    finishing: RunningRequests = request.app.state.engine_client.finishing
    try:
        closed = finishing.finish(context.caller if context else b"", id)
    except CannotFinish as refusal:
        return _error(HTTPStatus.CONFLICT, "ConflictError", str(refusal))
    if closed is None:
        message = "No request of this API key that still runs has this id."
        return _error(HTTPStatus.NOT_FOUND, "NotFoundError", message)
    return JSONResponse({"id": id, "object": "thinking.finished", "sequences": closed})


_router.include_router(_finishes)


class Routes:
    """ASGI middleware that adds the routes, when the application starts."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._openmetrics = metrics_app(REGISTRY)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            app = scope["app"]
            app.include_router(_router)
            app.title, app.version = TITLE, own_version()
            app.openapi = describe(app.openapi)
        inner = self._openmetrics if asks_openmetrics(scope) else self._app
        await inner(scope, receive, send)
