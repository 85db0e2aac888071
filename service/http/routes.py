"""Routes added to vLLM's application; they require an API key when keys are configured."""

from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import REGISTRY
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.identity import caller_of
from service.access.refusals import error_object
from service.access.scrape import metrics_app, wants_openmetrics
from service.http.openapi import TITLE, describe, own_version
from service.load.running import CannotFinish, RunningRequests
from service.params import Effective
from service.records.recent import KEPT_SECONDS, RecentResponses
from service.records.sequence import current_request
from service.savings.measurement import SavingsMeasurement
from service.savings.report import as_csv, as_json, read_estimates
from stepgrpo_core import POLICIES

__all__ = ["Routes"]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "An invalid parameter"},
    401: {"description": "A missing or unknown API key"},
}
_router = APIRouter(tags=["stepgrpo"], responses=_REFUSALS)
_finishes = APIRouter(
    responses={
        404: {"description": "No running request of this API key has this id"},
        409: {"description": "Its thinking cannot be ended"},
    }
)


@_router.get("/v1/stepgrpo/savings", responses={200: {"content": {"text/csv": {}}}})
def savings(request: Request, format: Literal["json", "csv"] = "json") -> Response:  # noqa: A002
    """Tokens saved by exits, by model and policy, measured by the holdout and paired runs."""
    savings = request.app.state.engine_client.savings
    measured = isinstance(savings, SavingsMeasurement)
    rows = read_estimates(savings.store) if measured else []
    warnings = savings.store.warnings() if measured else []
    if format == "csv":
        return PlainTextResponse(as_csv(rows), media_type="text/csv")
    return JSONResponse(as_json(rows, warnings))


@_router.head("/v1/models", include_in_schema=False)
def has_models() -> Response:
    """Answer HEAD; vLLM's own route lists the models for GET only."""
    return Response()


@_router.head("/v1/models/{id:path}", include_in_schema=False)
@_router.get("/v1/models/{id:path}", include_in_schema=False)
async def model(id: str, request: Request) -> JSONResponse:  # noqa: A002
    """Return one of the served models, as in vLLM's list."""
    listed = await request.app.state.openai_serving_models.show_available_models()
    for each in listed.data:
        if each.id == id:
            return JSONResponse(each.model_dump())
    served = ", ".join(each.id for each in listed.data)
    message = f"The model {id[:100]!r} is not served: use one of {served}."
    return _error(HTTPStatus.NOT_FOUND, "NotFoundError", message, "model")


def _error(status: HTTPStatus, kind: str, message: str, param: str = "id") -> JSONResponse:
    return JSONResponse(error_object(message, kind, param, int(status)), status)


@_router.get("/v1/stepgrpo/settings")
def settings(request: Request) -> JSONResponse:
    """Return the exit policies of this server, and policy and settings of requests that name
    none."""
    defaults: Effective = request.app.state.engine_client.defaults
    return JSONResponse(
        {
            "object": "stepgrpo.settings",
            "policy": defaults.settings.policy,
            "settings": defaults.as_block(),
            "policies": ["none", *(name for name in POLICIES if name != "none")],
        }
    )


@_router.get("/v1/stepgrpo/responses")
def responses(request: Request, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> JSONResponse:
    """List the last responses of this API key, the newest first, without any text."""
    recent: RecentResponses = request.app.state.engine_client.recent
    found = recent.latest(caller_of(request.headers.raw), limit)
    return JSONResponse(
        {"object": "list", "data": [{"object": "stepgrpo.response", **each} for each in found]}
    )


@_router.get(
    "/v1/stepgrpo/responses/{id}",
    responses={404: {"description": "No recent response of this API key has this id"}},
)
async def response_of(id: str, request: Request) -> JSONResponse:  # noqa: A002
    """Return the ``stepgrpo`` block of a response of this API key, for some minutes after its end,
    and its timeline. Clients that drop unknown fields from streams can fetch it here."""
    recent: RecentResponses = request.app.state.engine_client.recent
    found = recent.find(caller_of(request.headers.raw), id)
    if found is None:
        message = (
            f"No response of this API key with this id ended in the last {KEPT_SECONDS / 60:g} "
            "minutes: use the key that made the request, after its stream has ended."
        )
        return _error(HTTPStatus.NOT_FOUND, "NotFoundError", message)
    return JSONResponse({"object": "stepgrpo.response", **found, "id": id})


@_finishes.post("/v1/chat/completions/{id}/finish-thinking")
@_finishes.post("/v1/completions/{id}/finish-thinking")
@_finishes.post("/v1/responses/{id}/finish-thinking")
@_finishes.post("/v1/messages/{id}/finish-thinking")
async def finish_thinking(id: str, request: Request) -> JSONResponse:  # noqa: A002
    """End the thinking of a running request, so that its answer begins within a few tokens.

    Has no effect on a request that is already answering.
    """
    context = current_request.get()
    running: RunningRequests = request.app.state.engine_client.running
    try:
        closed = running.finish(context.caller if context else b"", id)
    except CannotFinish as refusal:
        return _error(HTTPStatus.CONFLICT, "ConflictError", str(refusal))
    if closed is None:
        message = "No running request of this API key has this id."
        return _error(HTTPStatus.NOT_FOUND, "NotFoundError", message)
    return JSONResponse({"id": id, "object": "thinking.finished", "sequences": closed})


_router.include_router(_finishes)


class Routes:
    """ASGI middleware that adds the routes when the application starts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._openmetrics = metrics_app(REGISTRY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            app = scope["app"]
            app.include_router(_router)
            app.title, app.version = TITLE, own_version()
            app.openapi = describe(app.openapi)
        inner = self._openmetrics if wants_openmetrics(scope) else self._app
        await inner(scope, receive, send)
