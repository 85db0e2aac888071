"""Serves the page's files, without an API key: they hold nothing but the page."""

import functools
import mimetypes
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.middleware import Rules, route_of

__all__ = ["FOLDER", "Page"]

FOLDER = Path(__file__).with_name("static")
INDEX = "index.html"
PREFIX = "/page/"
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # no string becomes HTML
        "trusted-types 'none'",
    )
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
)


class Page:
    """ASGI middleware outside of access control, for ``/`` and the files below ``/page/``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        name = _asked(scope)
        if name is None or not _is_shown(scope):
            await self._app(scope, receive, send)
            return
        body, kind = _read()[name]
        headers = [
            *_HEADERS,
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if _is_head(scope) else body})


def _asked(scope: Scope) -> str | None:
    """Return the name of the file that a request asks for; None for any other request."""
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return None
    route = route_of(scope)
    name = INDEX if route == "/" else route.removeprefix(PREFIX)
    return name if name != route and name in _read() else None


def _is_shown(scope: Scope) -> bool:
    rules: Rules = scope["app"].state.args.access
    return rules.page


def _is_head(scope: Scope) -> bool:
    return bool(scope["method"] == "HEAD")


@functools.cache
def _read() -> dict[str, tuple[bytes, bytes]]:
    """Return content and type of each file, by name; read at the first request."""
    return {path.name: (path.read_bytes(), _kind_of(path)) for path in FOLDER.iterdir()}


def _kind_of(path: Path) -> bytes:
    kind = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(path.name)[0]
    return f"{kind}; charset=utf-8".encode()
