"""/ready, and what a refusal says."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from service.http.health import Readiness


def serve(
    state: str,
    path: str,
    *,
    status: int = 200,
    method: str = "GET",
    root_path: str = "",
    warnings: Sequence[str] = (),
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of one request; the application behind answers `status`."""
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"behind"})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    engine = SimpleNamespace(readiness=state, warnings=warnings)
    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "root_path": root_path,
        "app": SimpleNamespace(state=SimpleNamespace(engine_client=engine)),
    }
    asyncio.run(Readiness(app)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


@pytest.mark.parametrize(
    ("state", "status"),
    [("starting", 503), ("ready", 200), ("stalled", 503), ("draining", 503), ("lost", 503)],
)
def test_ready_says_how_the_engine_is(state: str, status: int) -> None:
    found, headers, body = serve(state, "/ready")
    assert (found, body) == (status, state.encode())
    assert (b"retry-after" in headers) == (status == 503)


def test_what_is_not_as_it_should_be_is_told_below() -> None:
    status, _, body = serve("ready", "/ready", warnings=["policy p is switched off for m"])
    assert (status, body) == (200, b"ready\npolicy p is switched off for m")


def test_ready_is_found_below_a_root_path() -> None:
    assert serve("draining", "/llm/ready", root_path="/llm")[2] == b"draining"


@pytest.mark.parametrize(("path", "method"), [("/ready", "POST"), ("/ready/", "GET"), ("/", "GET")])
def test_everything_else_passes(path: str, method: str) -> None:
    assert serve("draining", path, method=method)[2] == b"behind"


def test_a_refusal_says_when_to_come_back() -> None:
    status, headers, body = serve("ready", "/v1/completions", status=503, method="POST")
    assert (status, body) == (503, b"behind")
    assert headers[b"retry-after"] == b"1"
    assert 500 <= int(headers[b"retry-after-ms"]) <= 1500
    assert b"connection" not in headers


def test_a_refusal_of_a_drain_closes_the_connection() -> None:
    _, headers, _ = serve("draining", "/v1/completions", status=503, method="POST")
    assert headers[b"connection"] == b"close"


def test_other_responses_pass_as_they_are() -> None:
    assert serve("draining", "/v1/completions", status=400)[1] == {
        b"content-type": b"application/json"
    }
