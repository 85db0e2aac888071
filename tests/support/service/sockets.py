"""Raw HTTP requests that client libraries cannot send."""

import contextlib
import re
import socket


def raw(url: str, request: str | bytes) -> tuple[int, bytes, bytes]:
    """Return status, head and body of the response to raw bytes."""
    host, port = url.removeprefix("http://").split(":")
    data = request if isinstance(request, bytes) else request.encode("latin-1")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        with contextlib.suppress(ConnectionError):
            while not _is_whole(answer, data) and (part := connection.recv(65536)):
                answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), head, body


def _is_whole(answer: bytes, request: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head)
    bodiless = request.startswith(b"HEAD ")
    return bool(end) and (length is None or bodiless or len(body) >= int(length[1]))
