"""Our own routes in vLLM's application. They lie under ``/v1/``, where vLLM asks for a key if the
server has any."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from service.holdout import HoldoutBook
from service.savings import as_csv, as_json, savings_rows

__all__ = ["Routes"]

App = Callable[..., Awaitable[None]]

_router = APIRouter(tags=["stepgrpo"])


@_router.get("/v1/stepgrpo/savings")
def savings(request: Request, format: Literal["json", "csv"] = "json") -> Response:  # noqa: A002
    """What exits saved, by model and policy, as the holdout shows it."""
    book: HoldoutBook | None = request.app.state.engine_client.book
    rows = savings_rows(book.store.read()) if book else []
    if format == "csv":
        return PlainTextResponse(as_csv(rows), media_type="text/csv")
    return JSONResponse(as_json(rows))


class Routes:
    """ASGI middleware that adds the routes, when the application starts."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            scope["app"].include_router(_router)
        await self._app(scope, receive, send)
