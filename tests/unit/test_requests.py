"""Parameters read from request bodies, and streams that break off."""

import asyncio
import json
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.exceptions import GracefulHTTPError

from service.http.responses import ResponseReporter
from service.params import Requested, Template, ThinkingRequest
from service.records.sequence import RequestContext, current_request
from tests.support.service.access import refusals
from tests.support.service.reporting import serve


def test_misplaced_parameters_are_refused_before_anything_is_made_of_them() -> None:
    before = refusals("parameter")
    sent = read_and_refused((b'{"exit_po', b'licy": "none"}'))
    assert refusals("parameter") == before + 1
    assert sent[0]["status"] == 400
    error = json.loads(sent[1]["body"])["error"]
    assert (error["param"], error["code"]) == ("exit_policy", 400)
    assert "vllm_xargs" in error["message"]
    for fine in (
        b'{"vllm_xargs": {"exit_policy": "none"}}',
        b"exit",
        b'["exit"]',
        b"[" * 100_000 + b"exit",
    ):
        out, _, _ = serve([b"{}"], b"application/json", request=(fine,))
        assert b"".join(out).startswith(b"{")


def read_and_refused(parts: tuple[bytes, ...], path: str = "/v1/chat/completions") -> list[Any]:
    """Return the response to a request that never reaches the application."""
    incoming = [part(each, more=each is not parts[-1]) for each in parts]
    sent: list[Any] = []

    async def app(*_: Any) -> None:
        raise AssertionError

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(
        ResponseReporter(app)({"type": "http", "method": "POST", "path": path}, receive, send)
    )
    return sent


def read_through(
    parts: list[Any], template: Template, path: str = "/v1/chat/completions"
) -> tuple[list[Any], RequestContext | None]:
    """Return the messages that the application receives of a body sent in `parts`."""
    got: list[Any] = []
    contexts: list[RequestContext | None] = []

    async def app(_: Any, receive: Any, __: Any) -> None:
        got.append(await receive())
        got.append(await receive())
        contexts.append(current_request.get())

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    engine = SimpleNamespace(template=template)
    state = SimpleNamespace(state=SimpleNamespace(engine_client=engine))
    scope = {"type": "http", "method": "POST", "path": path, "app": state}
    asyncio.run(ResponseReporter(app)(scope, receive, send))
    return got, contexts[0]


GONE = {"type": "http.disconnect"}


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/prefix/v1/messages", "/invocations"])
def test_what_the_schema_has_no_place_for_reaches_the_template(path: str) -> None:
    parts = [part(b'{"enable_thi', more=True), part(b'nking": false}'), GONE]
    got, context = read_through(parts, Template(("thinking",)), path)
    assert json.loads(got[0]["body"]) == {
        "enable_thinking": False,
        "chat_template_kwargs": {"thinking": False},
    }
    assert got[0]["more_body"] is False
    assert got[1] is GONE
    assert context is not None
    assert context.thinking_request.off is not None
    assert context.thinking_request.already_off


def test_a_body_that_says_all_passes_byte_for_byte_and_a_client_may_leave_within() -> None:
    body = b'{"thinking_token_budget" : 7}'
    got, context = read_through([part(body), GONE], Template())
    assert got == [part(body), GONE]
    assert context is not None
    assert context.thinking_request.budget == Requested(7, "thinking_token_budget")
    assert read_through([part(b"{", more=True), GONE, GONE], Template())[0] == [GONE, GONE]


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (True, True),
        ("true", True),
        (1, True),
        ("on", True),
        (False, False),
        ("false", False),
        ("no", False),
        (0, False),
        (None, False),
        ("maybe", False),
        ([1], False),
    ],
)
def test_usage_is_wanted_where_vllms_schema_reads_it_so(written: Any, wanted: bool) -> None:
    body = json.dumps({"stream_options": {"include_usage": written}}).encode()
    _, context = read_through([part(body), GONE], Template())
    assert context is not None
    assert context.wants_usage is wanted


@pytest.mark.parametrize("stream", [True, "true", 1])
def test_a_batch_that_is_to_stream_is_refused(stream: Any) -> None:
    body = json.dumps({"messages": [[]], "stream": stream}).encode()
    sent = read_and_refused((body,), "/v1/chat/completions/batch")
    error = json.loads(sent[1]["body"])["error"]
    assert (sent[0]["status"], error["param"]) == (400, "stream")


def test_only_bodies_that_generate_are_read() -> None:
    for path in ("/v1/embeddings", "/v1/messages/count_tokens"):
        got, context = read_through([part(b'{"exit_policy": 1}'), GONE], Template(), path)
        assert got[0]["body"] == b'{"exit_policy": 1}'
        assert context is not None
        assert context.thinking_request == ThinkingRequest()


def test_other_paths_are_left_alone() -> None:
    out, _, context = serve([b'{"a":1}'], b"application/json", path="/health")
    assert context is not None  # for admission
    assert b"".join(out) == b'{"a":1}'


def test_the_end_of_a_response_is_told_to_the_ledger() -> None:
    ended: list[RequestContext] = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        context = current_request.get()
        assert context is not None
        context.on_end = ended.append
        raise ConnectionError

    async def gone(*_: Any) -> Any:
        return GONE

    scope = {"type": "http", "method": "POST", "path": "/v1/completions"}
    with pytest.raises(ConnectionError):
        asyncio.run(ResponseReporter(app)(scope, gone, gone))
    assert len(ended) == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/responses", {"type": "error", "code": "500", "param": None}),
        ("/v1/messages", {"type": "error", "error": {"type": "api_error"}}),
        ("/v1/completions", {"error": {"type": "api_error", "param": None, "code": 500}}),
    ],
)
def test_a_stream_that_breaks_in_the_middle_says_so(path: str, said: dict[str, Any]) -> None:
    """The cause goes to the log, not to the client."""
    out = broken_off(path, RuntimeError("a secret"), b"data: {}\n\n")
    assert b"".join(out).startswith(b"data: {}\n\n")
    data = b"".join(out).split(b"data: ")[2].partition(b"\n\n")[0]
    found = json.loads(data)
    holder = found.get("error", found)
    assert holder.pop("message") == "Internal server error"
    assert found == said


def test_a_stream_that_is_cut_off_says_why() -> None:
    error = GracefulHTTPError("over", HTTPStatus.SERVICE_UNAVAILABLE)
    found = b"".join(broken_off("/v1/responses", error, b"data: {}\n\n"))
    assert b'"code": "503", "message": "over"' in found


def test_what_breaks_before_it_streams_is_for_others_to_tell() -> None:
    with pytest.raises(RuntimeError, match="a secret"):
        broken_off("/v1/responses", RuntimeError("a secret"))


def broken_off(path: str, error: Exception, *parts: bytes) -> list[bytes]:
    """Return the bodies of a stream of `parts` that ends in an exception, wrapped by Starlette."""
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        raise error

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path}
    asyncio.run(ResponseReporter(app)(scope, receive, send))
    assert not sent[-1].get("more_body", False)
    return [message["body"] for message in sent[1:]]


def test_other_content_passes() -> None:
    assert b"".join(serve([b"abc"], b"audio/wav")[0]) == b"abc"
