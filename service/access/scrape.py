"""The metrics endpoint: OpenMetrics with exemplars, and a separate port for private networks."""

import socket

from prometheus_client import CollectorRegistry, make_asgi_app
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.middleware import METRICS, route_of
from service.access.refusals import Refused, send_refusal

__all__ = ["bind_metrics", "metrics_app", "wants_openmetrics"]

_OPENMETRICS = b"application/openmetrics-text"
# Other escaping schemes make prometheus_client 0.26 turn `vllm:` into `vllm_`, although the names
# of this server need no escaping in any scheme.
_ACCEPTED = _OPENMETRICS + b"; version=1.0.0; escaping=allow-utf-8"


def bind_metrics(host: str, port: int) -> socket.socket:
    """Bind the port before anything slow starts. Raises OSError with the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(f"cannot bind port {port} ({error.strerror}); pass --metrics-port") from error


def wants_openmetrics(scope: Scope) -> bool:
    """Return whether a request is a scrape that accepts OpenMetrics.

    vLLM's own route supports only the older text format.
    """
    if scope["type"] != "http" or scope["method"] != "GET" or route_of(scope) != METRICS:
        return False
    return any(name == b"accept" and _OPENMETRICS in value for name, value in scope["headers"])


def metrics_app(registry: CollectorRegistry) -> ASGIApp:
    """Return an application that serves ``GET /metrics`` and nothing else."""
    inner = make_asgi_app(registry)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if route_of(scope) == METRICS and scope["method"] in ("GET", "HEAD"):
            headers = [
                (name, _ACCEPTED if name == b"accept" and _OPENMETRICS in value else value)
                for name, value in scope["headers"]
            ]
            await inner({**scope, "headers": headers}, receive, send)
            return
        message = f"This port serves only GET {METRICS}."
        await send_refusal(Refused("key", 404, "NotFoundError", message), send)

    return app
