"""A small application behind the access rules, over real HTTP."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from prometheus_client import REGISTRY

from service.access.keys import KeyRing
from service.access.limits import KeyLimits
from service.access.middleware import Access, Rules
from service.access.protocol import HttpProtocol
from service.load.admission import Admission

KEY = "sk-of-a-client"
MAX_BODY = 10_000


class Streams:
    """Middleware that answers paths ending in /stream with an endless response."""

    def __init__(self, within: Any) -> None:
        self._within = within

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/stream"):
            await self._within(scope, receive, send)
            return

        async def pieces() -> Any:
            while True:
                yield b"x"
                await asyncio.sleep(0.01)

        await StreamingResponse(pieces())(scope, receive, send)


def application() -> FastAPI:
    """Return an application that answers every path, behind the middleware."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "OPTIONS"])
    async def anything(path: str, request: Request) -> Any:
        return {"path": path, "bytes": len(await request.body())}

    @app.websocket("/{path:path}")
    async def spoken(path: str, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(path)

    app.add_middleware(Streams)
    app.add_middleware(Access)
    return app


@contextlib.contextmanager
def serving(
    keys: tuple[str, ...] = (KEY,),
    root_path: str = "",
    slots: Admission | None = None,
    **rules: Any,
) -> Iterator[str]:
    """Serve the application with uvicorn on a free port."""
    limits = rules.pop("limits", KeyLimits())
    app = application()
    app.state.engine_client = slots or admission(None)
    app.state.args = SimpleNamespace(access=Rules(KeyRing(keys), limits, MAX_BODY, **rules))
    app.root_path = root_path
    with socket.create_server(("127.0.0.1", 0)) as bound, running(app, bound) as url:
        yield url


@contextlib.contextmanager
def running(app: Any, bound: socket.socket) -> Iterator[str]:
    """Run uvicorn in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, http=HttpProtocol, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def refusals(cause: str) -> float:
    return REGISTRY.get_sample_value("stepgrpo_refusals_total", {"cause": cause}) or 0.0


def admission(limit: int | None, tokens: int | None = None, queued: int = 0) -> Admission:
    scheduler = SimpleNamespace(max_num_queued_reqs=limit, max_num_queued_tokens=tokens)
    engine = SimpleNamespace(
        vllm_config=SimpleNamespace(scheduler_config=scheduler),
        get_num_queued_tokens=lambda: queued,
    )
    made = Admission(engine)
    assert (scheduler.max_num_queued_reqs, scheduler.max_num_queued_tokens) == (None, None)
    return made
