"""Metrics on a port of their own, for a network that clients do not reach; and in the OpenMetrics
format, which has exemplars, on any."""

import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, make_asgi_app

from service.access.middleware import METRICS, route_of
from service.access.refusals import Refused, answer

__all__ = ["bind_metrics", "metrics_app", "wants_openmetrics"]

_OPENMETRICS = b"application/openmetrics-text"
# In other schemes prometheus_client 0.26 makes `vllm_` of `vllm:`, which none of them asks for: the
# names of this server need no escaping in any.
_ACCEPTED = _OPENMETRICS + b"; version=1.0.0; escaping=allow-utf-8"

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Any, Send], Awaitable[None]]


def bind_metrics(host: str, port: int) -> socket.socket:
    """Take the port, before anything slow; raises OSError that says which."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(
            f"port {port} cannot be taken ({error.strerror}); pass --metrics-port"
        ) from error


def wants_openmetrics(scope: MutableMapping[str, Any]) -> bool:
    """Whether a request is a scrape that takes OpenMetrics: vLLM's own route knows only the older
    text format."""
    if scope["type"] != "http" or scope["method"] != "GET" or route_of(scope) != METRICS:
        return False
    return any(name == b"accept" and _OPENMETRICS in value for name, value in scope["headers"])


def metrics_app(registry: CollectorRegistry) -> App:
    """Answers ``GET /metrics``, and nothing else."""
    inner = make_asgi_app(registry)

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return
        if route_of(scope) == METRICS and scope["method"] in ("GET", "HEAD"):
            headers = [
                (name, _ACCEPTED if name == b"accept" and _OPENMETRICS in value else value)
                for name, value in scope["headers"]
            ]
            await inner({**scope, "headers": headers}, receive, send)
            return
        message = f"This port answers GET {METRICS}, and nothing else."
        await answer(Refused("key", 404, "NotFoundError", message), send)

    return app
