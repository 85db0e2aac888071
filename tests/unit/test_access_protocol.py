"""Answers to requests that are not valid HTTP or arrive too slowly."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import pytest

from service.access.protocol import MAX_HEAD, HttpProtocol
from tests.support.service.access import KEY, refusals, serving
from tests.support.service.sockets import raw


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    with serving() as url:
        yield url


# Invalid HTTP.


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nX-Request-Id: a\rb\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: nonsense\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_an_error_in_openais_shape(guarded: str, request_bytes: bytes) -> None:
    before = refusals("malformed") + refusals("key")
    status, head, body = raw(guarded, request_bytes)
    assert 400 <= status < 500
    assert b"content-type: application/json" in head
    error = json.loads(body)["error"]
    assert error["code"] == status
    assert b"Traceback" not in body
    assert b"0x" not in body
    assert refusals("malformed") + refusals("key") > before


def test_a_chunk_that_is_none_ends_a_request_that_was_let_in(guarded: str) -> None:
    head = f"POST /v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    status, _, body = raw(guarded, f"{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")
    assert (status, json.loads(body)["error"]["code"]) == (400, 400)


@pytest.mark.parametrize("endless", ["X: " + "a" * 3_000_000, "X: a\r\n" * 500_000])
def test_a_head_without_end_is_refused(guarded: str, endless: str) -> None:
    """One large header or many small ones, sent in pieces."""
    status, _, body = raw(guarded, f"GET / HTTP/1.1\r\n{endless}")
    assert (status, json.loads(body)["error"]["code"]) == (431, 431)
    assert str(MAX_HEAD) in json.loads(body)["error"]["message"]


def test_a_head_that_never_ends_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a new connection and after a response; an idle connection is closed."""
    monkeypatch.setattr(HttpProtocol, "head_seconds", 0.3)
    with serving() as url:
        host, port = url.removeprefix("http://").split(":")
        status, _, body = raw(url, "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: a")
        assert (status, json.loads(body)["error"]["code"]) == (408, 408)
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in connection.recv(65536)
            time.sleep(0.5)  # idle, as between two requests
            connection.sendall(b"GET /health HTTP/1.1\r\n")
            assert b"408" in connection.recv(65536)
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            assert connection.recv(1) == b""


def test_a_body_that_never_ends_has_its_time() -> None:
    with serving(body_seconds=0.3) as url:
        before = refusals("size")
        head = f"POST /v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        status, _, body = raw(url, f"{head}Content-Length: 100\r\n\r\nab")
        assert (status, json.loads(body)["error"]["type"]) == (408, "RequestTimeoutError")
        assert refusals("size") == before + 1


def test_trailers_are_no_headers(guarded: str) -> None:
    """A trailer must not supply an API key: a proxy may have checked the headers."""
    request = "POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    trailers = f"3\r\nabc\r\n0\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    assert raw(guarded, request + trailers)[0] == 401


def test_garbage_behind_a_response_that_runs_does_not_get_into_it(guarded: str) -> None:
    host, port = guarded.removeprefix("http://").split(":")
    head = f"POST /v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        assert b"200 OK" in connection.recv(65536)
        connection.sendall(b"\x00garbage\r\n\r\n")
        rest = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                rest += part
    assert b"400" not in rest
    assert b"error" not in rest
