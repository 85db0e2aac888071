"""Conventions of SDKs: the request id is returned, and errors have Anthropic's shape."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.http.routes import Routes
from service.http.sdk_compatibility import SdkCompatibility

OPENAI = {"error": {"message": "too much", "type": "RateLimitError", "param": None, "code": 429}}


def answered(
    status: int, body: bytes, headers: list[tuple[bytes, bytes]], path: str = "/v1/messages"
) -> tuple[dict[bytes, bytes], bytes]:
    """Return headers and body of a response with `body` in two parts."""
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        start = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": body[5:]})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    scope = {"type": "http", "path": path, "headers": headers}
    asyncio.run(SdkCompatibility(app)(scope, receive, send))
    assert sent[0]["status"] == status
    return dict(sent[0]["headers"]), b"".join(each["body"] for each in sent[1:])


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/messages", "/root/v1/messages", "/v1/messages/count_tokens"])
def test_errors_of_messages_have_anthropics_shape(path: str, status: int, kind: str) -> None:
    headers, body = answered(status, json.dumps(OPENAI).encode(), [], path)
    assert json.loads(body) == {"type": "error", "error": {"type": kind, "message": "too much"}}
    assert headers[b"content-length"] == str(len(body)).encode()
    own = {"type": "error", "error": {"type": "x", "message": "m", "param": "n"}}
    _, body = answered(status, json.dumps(own).encode(), [], path)
    assert json.loads(body)["error"] == {"type": kind, "message": "m", "param": "n"}


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[1]", b'{"error": 1}', b'{"a": {}}'])
def test_what_is_no_error_of_ours_passes(body: bytes) -> None:
    assert answered(500, body, [])[1] == body


def test_other_responses_pass() -> None:
    body = json.dumps(OPENAI).encode()
    assert answered(429, body, [], "/v1/chat/completions")[1] == body
    assert answered(200, body, [])[1] == body


def test_the_id_of_a_request_comes_back() -> None:
    for path in ("/v1/messages", "/v1/completions", "/health"):
        assert answered(200, b"{}", [(b"x-request-id", b"job 5")], path)[0][b"x-request-id"] == (
            b"job 5"
        )
    assert b"x-request-id" not in answered(200, b"{}", [])[0]


@pytest.mark.parametrize(
    "value", [b"a\r\nset-cookie: x", b"a\nb", b"", b"a\x00", b"\xff", b"x" * 257]
)
def test_an_id_that_could_be_more_than_an_id_does_not(value: bytes) -> None:
    assert b"x-request-id" not in answered(200, b"{}", [(b"x-request-id", value)])[0]


class Listed:
    """Stands in for vLLM's list of models."""

    async def show_available_models(self) -> Any:
        card = SimpleNamespace(id="org/base", model_dump=lambda: {"id": "org/base"})
        return SimpleNamespace(data=[card])


def test_a_model_is_found_by_its_name_and_heads_are_answered() -> None:
    app = FastAPI()

    async def nothing(*_: Any) -> Any:
        return

    asyncio.run(Routes(nothing)({"type": "lifespan", "app": app}, nothing, nothing))
    app.state.openai_serving_models = Listed()
    client = TestClient(app)
    assert client.get("/v1/models/org/base").json() == {"id": "org/base"}
    missing = client.get("/v1/models/other")
    assert missing.status_code == 404
    assert missing.json()["error"]["param"] == "model"
    assert "use one of org/base" in missing.json()["error"]["message"]
    for path in ("/v1/models", "/v1/models/org/base"):
        assert client.head(path).status_code == 200
    assert client.head("/v1/models/other").status_code == 404
