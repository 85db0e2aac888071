"""A client that reads as little as it must, and leaves when it is told to: HTTP over a socket.

One connection for each request. Thousands of requests cost an ordinary client more than they cost
the server; and where it closes a connection is its own affair.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Reply", "message", "request"]

Leave = Callable[[dict[str, Any]], bool]
"""Whether to go now, after this event of a stream."""


@dataclass(slots=True)
class Reply:
    """What came of one request."""

    status: int = 0
    """0: left before the headers came."""
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""
    whole: bool = False
    """The response came to its proper end."""
    last: dict[str, Any] = field(default_factory=dict)
    """The response, or the last event of its stream."""
    events: int = 0
    seconds: float = 0.0
    """Until the headers came."""


async def request(
    url: str, body: dict[str, Any], *, leave: Leave | None = None, stay: float | None = None
) -> Reply:
    """POST `body`, and read; go after `stay` seconds, or when `leave` says so."""
    reply = Reply()
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(message(url, body))
        await asyncio.wait_for(_read(reader, reply, leave), stay)
    except TimeoutError:
        pass  # it has stayed for as long as it should
    finally:
        writer.close()
    return reply


def message(url: str, body: dict[str, Any]) -> bytes:
    """A whole POST of `body`, as it goes over the wire."""
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
    # The sizes of the chunks are lines of their own, and no event starts like one.
    while line := await reader.readline():
        if line.startswith(b"data: [DONE]"):
            reply.whole = True
        elif line.startswith(b"data: "):
            reply.events += 1
            reply.last = json.loads(line[len(b"data: ") :])
            if "error" in reply.last or (leave is not None and leave(reply.last)):
                return
