"""Access control over real HTTP: middleware and protocol in front of a small application."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from service.access.limits import KeyLimits
from service.access.middleware import OPEN
from service.access.scrape import bind_metrics, metrics_app
from tests.support.service.access import KEY, MAX_BODY, admission, refusals, running, serving
from tests.support.service.sockets import raw

MINE = {"authorization": f"Bearer {KEY}"}
ALLOWED_CORS = {"origin": "https://page.example", "access-control-request-method": "POST"}


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    with serving() as url:
        yield url


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return the error of a refusal, in OpenAI's shape."""
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == response.status_code
    return error


# Keys.


def test_only_the_list_answers_without_a_key(guarded: str) -> None:
    with httpx.Client(base_url=guarded) as client:
        for route in OPEN:
            assert client.get(route).status_code == 200
            assert client.head(route).status_code == 200
            assert client.post(route).status_code == 401
            assert client.options(route).status_code == 401
        before = refusals("key")
        for route in ("/", "/metrics", "/version", "/docs", "/invocations", "/v1/models"):
            refused = client.get(route)
            assert error_of(refused)["type"] == "AuthenticationError"
            assert refused.headers["www-authenticate"] == "Bearer"
            assert client.get(route, headers=MINE).status_code == 200
        assert refusals("key") == before + 6


@pytest.mark.parametrize(
    "target",
    [
        *(
            "//health",
            "/health/",
            "/Health",
            "/health%2f",
            "/health%20",
            "/health;/v1",
            "/%2fhealth",
        ),
        *("/health/../v1/models", "/v1/../health", "/health%00", "/health%0a", "/./health"),
        *("http://health/v1/models", "/v1/models?x=/health", "/v1/models#/health"),
        *("/healthz", "/health;/v1"),
    ],
)
@pytest.mark.parametrize("host", ["x", "/health", "x/health?", "health#"])
def test_paths_and_hosts_that_look_open_are_not(guarded: str, target: str, host: str) -> None:
    assert raw(guarded, f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")[0] in (400, 401)


@pytest.mark.parametrize("target", ["/%68ealth", "/health?x=1", "http://anything/health"])
def test_other_ways_to_write_an_open_path_are_open(guarded: str, target: str) -> None:
    assert raw(guarded, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200


@pytest.mark.parametrize(
    "header",
    ["Authorization: Bearer wrong", f"Authorization: {KEY}", "X-API-Key: wrong", "Authorization: "],
)
def test_a_wrong_key_is_none(guarded: str, header: str) -> None:
    assert raw(guarded, f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n")[0] == 401


def test_a_websocket_needs_a_key(guarded: str) -> None:
    url = guarded.replace("http", "ws")
    for path in ("/v1/realtime", "/health"):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{url}{path}")
        assert refused.value.response.status_code == 403
    with connect(f"{url}/v1/realtime", additional_headers=MINE) as websocket:
        assert websocket.recv() == "v1/realtime"


def test_open_routes_are_found_below_a_root_path() -> None:
    with serving(root_path="/llm") as url, httpx.Client(base_url=url) as client:
        assert client.get("/llm/health").status_code == 200
        assert client.get("/health").status_code == 200  # a proxy that strips it
        for path in ("/llm/llm/health", "/llmhealth", "/llm", "/llm/v1/models", "/health/llm"):
            assert client.get(path).status_code == 401


def test_metrics_are_open_where_they_are_meant_to_be() -> None:
    with serving(open_metrics=True) as url:
        assert httpx.get(f"{url}/metrics").status_code == 200
        assert httpx.get(f"{url}/metrics/x").status_code == 401
    with serving(open_metrics=True, metrics_at=("", 9)) as url:
        for path in ("/metrics", "/metrics/", "/metricsx"):
            gone = httpx.get(f"{url}{path}", headers=MINE)
            assert (gone.status_code, error_of(gone)["type"]) == (404, "NotFoundError")


def test_a_preflight_passes_only_where_cors_is_open() -> None:
    with serving(cors=True) as url, httpx.Client(base_url=url) as client:
        assert client.options("/v1/models", headers=ALLOWED_CORS).status_code == 200
        assert client.options("/v1/models").status_code == 401
        assert client.get("/v1/models", headers=ALLOWED_CORS).status_code == 401
    with serving() as url:
        assert httpx.options(f"{url}/v1/models", headers=ALLOWED_CORS).status_code == 401


def test_without_keys_all_is_open() -> None:
    with serving(keys=()) as url:
        assert httpx.get(f"{url}/v1/models").status_code == 200
        assert httpx.post(f"{url}/invocations", content=b"x" * (MAX_BODY + 1)).status_code == 413


def test_metrics_have_a_port_of_their_own() -> None:
    registry = CollectorRegistry()
    Counter("seen", "", registry=registry).inc()
    Counter("vllm:seen", "", registry=registry).inc()
    with bind_metrics("127.0.0.1", 0) as bound, running(metrics_app(registry), bound) as url:
        assert "seen_total 1.0" in httpx.get(f"{url}/metrics").text
        kind = "application/openmetrics-text"
        for accepted in (kind, f"{kind};version=1.0.0;q=0.5,text/plain;q=0.2,*/*;q=0.1"):
            answer = httpx.get(f"{url}/metrics", headers={"accept": accepted})
            assert answer.headers["content-type"].startswith(f"{kind}; version=1.0.0")
            found = {each.name for each in text_string_to_metric_families(answer.text)}
            assert found == {"seen", "vllm:seen"}
            assert "\nvllm:seen_total 1.0\n" in answer.text
        assert httpx.head(f"{url}/metrics").status_code == 200
        for method, path in (("GET", "/"), ("GET", "/metrics/"), ("POST", "/metrics")):
            gone = httpx.request(method, url + path)
            assert (gone.status_code, error_of(gone)["type"]) == (404, "NotFoundError")
        with pytest.raises(InvalidStatus):
            connect(url.replace("http", "ws") + "/metrics")
        port = bound.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot bind port {port} .*; pass --metrics-port"):
            bind_metrics("127.0.0.1", port)


# Bodies.


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 1000):
        yield b"x" * 1000


def test_a_body_is_as_large_as_it_may_be(guarded: str) -> None:
    with httpx.Client(base_url=guarded, headers=MINE) as client:
        for content in (b"x" * MAX_BODY, chunks(MAX_BODY)):
            assert client.post("/v1/x", content=content).json()["bytes"] == MAX_BODY
        before = refusals("size")
        for content in (b"x" * (MAX_BODY + 1), chunks(2 * MAX_BODY)):
            refused = client.post("/v1/x", content=content)
            assert refused.status_code == 413
            assert f"{MAX_BODY} bytes" in error_of(refused)["message"]
        assert refusals("size") == before + 2
        assert client.get("/v1/x").status_code == 200, "the connection goes on"


def test_a_length_that_is_too_large_is_refused_before_anything_is_sent(guarded: str) -> None:
    head = f"POST /v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    expecting = f"{head}Expect: 100-continue\r\nContent-Length: 99999999999999999999999\r\n\r\n"
    assert raw(guarded, expecting)[0] in (400, 413)
    assert raw(guarded, f"{head}Content-Length: {MAX_BODY + 1}\r\n\r\n")[0] == 413


def test_chunks_without_end_are_refused_at_the_limit(guarded: str) -> None:
    head = f"POST /v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    chunk = "3e8\r\n" + "[" * 1000 + "\r\n"
    endless = f"{head}Transfer-Encoding: chunked\r\n\r\n" + chunk * (MAX_BODY // 1000 + 1)
    assert raw(guarded, endless)[0] == 413


def test_a_body_of_brackets_is_a_clear_400(guarded: str) -> None:
    refused = httpx.post(f"{guarded}/v1/x", content=b"[" * 5000, headers=MINE)
    assert refused.status_code == 400
    assert "nested" in error_of(refused)["message"]
    many = httpx.post(f"{guarded}/v1/x", json={"stop": ["a"] * 100}, headers=MINE)
    assert (many.status_code, error_of(many)["param"]) == (400, "stop")


def test_without_a_key_no_body_is_looked_at(guarded: str) -> None:
    assert httpx.post(f"{guarded}/v1/x", content=b"[" * 5000).status_code == 401


# Limits of a key.


def test_a_keys_rate_is_refused_with_the_time_to_come_back() -> None:
    limits = KeyLimits(rate=3)
    with serving(("a", "b"), limits=limits) as url, httpx.Client(base_url=url) as client:
        a, b = ({"authorization": f"Bearer {key}"} for key in "ab")
        assert [client.post("/v1/x", headers=a).status_code for _ in range(3)] == [200] * 3
        refused = client.post("/v1/x", headers=a, content=b"[" * MAX_BODY)
        assert (refused.status_code, error_of(refused)["type"]) == (429, "RateLimitError")
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert 0 < int(refused.headers["retry-after-ms"]) <= 20_000
        assert client.get("/v1/models", headers=a).status_code == 200, "reading costs nothing"
        assert client.post("/v1/chat/completions/1/finish-thinking", headers=a).is_success
        assert client.post("/v1/x", headers=b).status_code == 200


def until(ready: Any) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_keys_slots_come_back_when_its_client_leaves() -> None:
    limits = KeyLimits(concurrency=3, rate=100)
    with serving(limits=limits) as url, httpx.Client(base_url=url, headers=MINE) as client:
        with client.stream("POST", "/v1/stream", json={"n": 2}) as response:
            assert response.status_code == 200
            assert client.post("/v1/x", json={"n": 1}).status_code == 200
            refused = client.post("/v1/x", json={"n": 2})
            assert (refused.status_code, error_of(refused)["type"]) == (429, "RateLimitError")
            assert refused.headers["retry-after"] == "1"
            assert client.post("/v1/responses/1/cancel", json={"n": 2}).status_code == 200
            next(response.iter_bytes())
        until(lambda: client.post("/v1/x", json={"n": 3}).status_code == 200)
        never = client.post("/v1/x", json={"n": 2, "prompt": ["a", "b"]})
        assert (never.status_code, error_of(never)["param"]) == (400, "n")


def test_what_finds_no_slot_costs_nothing_of_the_minute() -> None:
    limits = KeyLimits(concurrency=1, rate=3)
    with (
        serving(limits=limits) as url,
        httpx.Client(base_url=url, headers=MINE) as client,
        client.stream("POST", "/v1/stream", json={}) as response,
    ):
        chunks = response.iter_bytes()  # keep a reference: collecting it would close the stream
        next(chunks)
        refused = [client.post("/v1/x") for _ in range(10)]
        assert all("1 sequences at once" in error_of(each)["message"] for each in refused)


def test_a_full_server_refuses_what_it_has_not_made_anything_of() -> None:
    slots, limits = admission(4), KeyLimits(rate=4)
    slots.in_use = 3
    with (
        serving(limits=limits, slots=slots) as url,
        httpx.Client(base_url=url, headers=MINE) as client,
    ):
        before = refusals("capacity")
        for _ in range(10):  # without using up the rate limit
            refused = client.post("/v1/chat/completions", json={"n": 2})
            assert refused.status_code == 503
            assert error_of(refused)["type"] == "Service Unavailable"
        assert refusals("capacity") == before + 10
        for path, n in (("/v1/chat/completions", 1), ("/v1/messages", 5), ("/tokenize", 2)):
            assert client.post(path, json={"n": n}).status_code == 200, "5 are too many for ever"
        slots.in_use, slots.closed = 0, True
        assert client.post("/v1/completions", json={}).status_code == 503, "it drains"
