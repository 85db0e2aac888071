"""Errors of the framework get OpenAI's shape; everything else passes unchanged."""

import asyncio
import json
from typing import Any

import pytest

from service.access.error_format import ErrorRewriter, format_framework_error

JSON = (b"content-type", b"application/json")


def passed(status: int, *parts: bytes, kind: tuple[bytes, bytes] = JSON) -> list[Any]:
    """Return the messages sent for a response whose body comes in `parts`."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def respond() -> None:
        rewriter = ErrorRewriter(send, format_framework_error)
        length = (b"content-length", str(len(b"".join(parts))).encode())
        headers = [kind, length, (b"x-other", b"1")]
        await rewriter.send({"type": "http.response.start", "status": status, "headers": headers})
        for number, part in enumerate(parts, start=1):
            more = number < len(parts)
            await rewriter.send({"type": "http.response.body", "body": part, "more_body": more})

    asyncio.run(respond())
    return sent


def test_a_detail_becomes_an_error() -> None:
    start, body = passed(404, b'{"detail":', b'"Not Found"}')
    assert json.loads(body["body"]) == {
        "error": {"message": "Not Found", "type": "Not Found", "param": None, "code": 404}
    }
    headers = dict(start["headers"])
    assert len(start["headers"]) == 3
    assert int(headers[b"content-length"]) == len(body["body"])
    assert headers[b"x-other"] == b"1"
    assert start["status"] == 404


def test_a_detail_that_is_no_text_is_told_all_the_same() -> None:
    _, body = passed(422, b'{"detail": [{"loc": "a"}]}')
    assert json.loads(body["body"])["error"]["message"] == '[{"loc": "a"}]'


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{"detail": "Not Found"}'),
        (404, b'{"error": {"message": "x"}}'),
        (404, b'{"detail": "x", "more": 1}'),
        (400, b"[1]"),
        (500, b"nonsense"),
    ],
)
def test_all_else_passes(status: int, body: bytes) -> None:
    start, first, second = [*passed(status, body[:4], body[4:]), None][:3]
    sent = first["body"] + (second["body"] if second else b"")
    assert (start["status"], sent) == (status, body)
    assert len(start["headers"]) == 3


def test_streams_pass_at_once() -> None:
    sent = passed(500, b"a", b"b", kind=(b"content-type", b"text/event-stream"))
    assert [message.get("body") for message in sent] == [None, b"a", b"b"]
