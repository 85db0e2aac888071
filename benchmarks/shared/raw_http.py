"""A minimal HTTP client over a socket that disconnects on request.

It opens one connection per request. Thousands of requests cost an ordinary client more than they
cost the server, and such a client itself decides when it closes a connection.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Reply", "message", "request"]

Leave = Callable[[dict[str, Any]], bool]
"""A predicate that returns whether to disconnect after this event of a stream."""


@dataclass(slots=True)
class Reply:
    """The result of one request."""

    status: int = 0
    """HTTP status; 0 if the client left before the headers came."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers by lowercase name."""
    whole: bool = False
    """True if the response was complete."""
    last: dict[str, Any] = field(default_factory=dict)
    """The response, or the last event of its stream."""
    events: int = 0
    seconds: float = 0.0
    """Seconds until the headers came."""


async def request(
    url: str, body: dict[str, Any], *, leave: Leave | None = None, stay: float | None = None
) -> Reply:
    """POST `body` and read; disconnect after `stay` seconds, or when `leave` returns True."""
    reply = Reply()
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(message(url, body))
        await asyncio.wait_for(_read(reader, reply, leave), stay)
    except TimeoutError:
        pass  # the client disconnects as planned
    finally:
        writer.close()
    return reply


def message(url: str, body: dict[str, Any]) -> bytes:
    """Return a complete POST request of `body` as bytes."""
    parts = urlsplit(url)
    data = json.dumps(body).encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


async def _read(reader: asyncio.StreamReader, reply: Reply, leave: Leave | None) -> None:
    started = asyncio.get_running_loop().time()
    reply.status = int((await reader.readline()).split()[1])
    reply.seconds = asyncio.get_running_loop().time() - started
    while line := (await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        reply.headers[name.lower()] = value.strip()
    if "chunked" not in reply.headers.get("transfer-encoding", ""):
        reply.last = json.loads(await reader.readexactly(int(reply.headers["content-length"])))
        reply.whole = True
        return
    # Chunk sizes are separate lines, and no event starts like one.
    while line := await reader.readline():
        if line.startswith(b"data: [DONE]"):
            reply.whole = True
        elif line.startswith(b"data: "):
            reply.events += 1
            reply.last = json.loads(line[len(b"data: ") :])
            if "error" in reply.last or (leave is not None and leave(reply.last)):
                return
