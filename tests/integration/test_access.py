"""Who may ask a real server for what: faults F11, F17, F18 and F22, keys, limits and tenants."""

import concurrent.futures
import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from service.access.keys import POLL_SECONDS
from service.access.middleware import OPEN
from tests.support.chat import IDLE_SECONDS, messages
from tests.support.models import PROBLEMS
from tests.support.servers import Server, total
from tests.support.service.keys import FILED, PER_MINUTE, SEATS
from tests.support.service.sockets import raw

pytestmark = [pytest.mark.integration, pytest.mark.slow]

GOOD, BAD = {"authorization": "Bearer filed-secret-1"}, {"authorization": "Bearer filed-secret"}
LAG_SECONDS = 0.1  # promised for the 99th percentile
SCRAPE_SECONDS = 0.05  # the same; here of the processor
SLACK = 3


@pytest.fixture
def client(guarded: Server) -> Iterator[httpx.Client]:
    """Of the key of a file, or of none where a test says so."""
    with httpx.Client(base_url=guarded.url, timeout=120) as made:
        yield made


def chat(client: httpx.Client, key: dict[str, str], **options: Any) -> httpx.Response:
    body = {"model": "demo-base", "messages": messages(), "temperature": 0, "max_tokens": 900}
    return client.post("/v1/chat/completions", json=body | options, headers=key)


# Every route (F18).


def routes(server: Server, client: httpx.Client) -> set[tuple[str, str]]:
    """Methods and paths of the running application: those that it logs when it starts, what its
    schema has, and what neither names."""
    found = set()
    for path, methods in re.findall(r"Route: (\S+), Methods: (.+)", server.log.read_text()):
        found |= {(method.strip(), path) for method in methods.split(",")}
    schema = client.get("/openapi.json", headers=GOOD).json()
    for path, methods in schema["paths"].items():
        found |= {(method.upper(), path) for method in methods}
    return found | {("GET", "/metrics"), ("GET", "/nothing-here"), ("GET", "/ready")}


def test_f18_every_route_needs_a_key_but_those_of_the_list(
    guarded: Server, client: httpx.Client
) -> None:
    walked = routes(guarded, client)
    assert {("POST", "/invocations"), ("GET", "/docs"), ("POST", "/tokenize")} <= walked
    assert {("GET", "/v1/stepgrpo/savings"), ("GET", "/version"), ("GET", "/load")} <= walked
    assert len(walked) > 30
    opened = set()
    for method, template in sorted(walked):
        path = re.sub(r"\{[^}]*\}", "x", template)
        tries = {m: client.request(m, path).status_code for m in (method, "OPTIONS", "PATCH")}
        if tries[method] != 401:
            opened.add((method, path))
        assert tries["OPTIONS"] == tries["PATCH"] == 401, path
        assert client.request(method, path, headers=BAD).status_code == tries[method], path
        assert client.request(method, path, headers=GOOD).status_code != 401, path
    assert {path for _, path in opened} == OPEN
    assert {method for method, _ in opened} <= {"GET", "HEAD"}
    assert client.get("/metrics", headers=GOOD).status_code == 404, "on a port of their own"
    assert any(line.startswith("stepgrpo_refusals_total") for line in guarded.scrape())


@pytest.mark.parametrize("path", ["/v1/models", "/invocations", "/tokenize", "/docs"])
def test_f18_no_spelling_of_path_or_host_is_a_way_around(guarded: Server, path: str) -> None:
    spellings = [path, "/" + path, path + "/", path.upper(), path.replace("/", "/./", 1)]
    spellings += [path.replace("/", "/%2e%2e/", 1), "/health/.." + path, "/health%2f.." + path]
    spellings += ["/%2f" + path[1:], f"http://x{path}", f"http://x/health{path}", path + "%00"]
    spellings += [path + "?/health", "/health;" + path, "/metrics" + path, "/health%0d%0a" + path]
    for spelling in spellings:
        for host in ("x", "/health", "x/health?", "health#", "127.0.0.1/ready?"):
            for method in ("GET", "POST", "HEAD"):
                request = f"{method} {spelling} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n"
                request += "X-Forwarded-Prefix: /health\r\nX-Original-URL: /health\r\n\r\n"
                assert raw(guarded.url, request)[0] in (400, 401), (method, spelling, host)


def test_f18_a_websocket_needs_a_key_too(guarded: Server) -> None:
    for path in ("/v1/realtime", "/health", "/metrics"):
        with pytest.raises(InvalidStatus) as refused:
            connect(guarded.url.replace("http", "ws") + path)
        assert refused.value.response.status_code in (401, 403)


def test_keys_of_flag_and_file_are_as_good_wherever_clients_put_them(client: httpx.Client) -> None:
    for key in ("mine", "yours", "filed-secret-1", "filed-secret-2"):
        for header in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
            assert client.get("/v1/models", headers=header).status_code == 200
    refused = client.get("/v1/models").json()["error"]
    assert (refused["type"], refused["code"]) == ("AuthenticationError", 401)


def test_a_browser_may_not_ask_from_another_page(client: httpx.Client) -> None:
    origin = {"origin": "https://page.example", "access-control-request-method": "POST"}
    assert client.options("/v1/models", headers=origin).status_code == 401
    answer = client.get("/v1/models", headers=GOOD | origin)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


# Keys that change.


def status_of(client: httpx.Client, key: str) -> int:
    return client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code


def wait_status(client: httpx.Client, key: str, status: int) -> None:
    deadline = time.monotonic() + SLACK * 10 * POLL_SECONDS
    while status_of(client, key) != status:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_keys_are_exchanged_without_a_restart(guarded: Server, client: httpx.Client) -> None:
    file = guarded.log.with_name("keys")

    def replace(text: str) -> None:
        file.with_suffix(".new").write_text(text)
        file.with_suffix(".new").replace(file)

    try:
        replace("filed-secret-3\n")
        wait_status(client, "filed-secret-3", 200)
        assert [status_of(client, f"filed-secret-{n}") for n in (1, 2)] == [401, 401]
        assert status_of(client, "mine") == 200
        replace("")
        while total(guarded.metrics(), "api_key_reloads") < 2:
            time.sleep(0.1)
        assert status_of(client, "filed-secret-3") == 200
    finally:
        replace(FILED)
    wait_status(client, "filed-secret-1", 200)
    assert status_of(client, "filed-secret-3") == 401
    log = guarded.log.read_text()
    assert "has changed, but it holds no key" in log
    assert "new: alice" in log
    assert "filed-secret" not in log
    assert "mine" not in log


# What a key may ask.


def test_a_keys_seats_are_its_own_and_come_back(guarded: Server, client: httpx.Client) -> None:
    yours = {"authorization": "Bearer yours"}
    body = {"model": "demo-base", "messages": messages(), "max_tokens": 1900, "stream": True}
    body |= {"ignore_eos": True}
    with contextlib.ExitStack() as streams:
        for _ in range(SEATS // 2):
            held = client.stream(
                "POST", "/v1/chat/completions", json=body | {"n": 2}, headers=yours
            )
            assert streams.enter_context(held).status_code == 200
        refused = chat(client, yours)
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "RateLimitError")
        assert refused.headers["retry-after"] == "1"
        assert int(refused.headers["retry-after-ms"]) == 1000
        assert chat(client, GOOD).status_code == 200, "another key's"
    guarded.wait_idle(IDLE_SECONDS)
    assert chat(client, yours).status_code == 200
    never = chat(client, yours, n=SEATS + 1)
    assert (never.status_code, never.json()["error"]["param"]) == (400, "n")


def test_a_keys_rate_is_its_own(client: httpx.Client) -> None:
    alice = {"authorization": "Bearer filed-secret-2"}
    body = {"model": "demo-base", "prompt": "1 + 1"}
    started, let_in = time.monotonic(), 0
    while (answer := client.post("/tokenize", json=body, headers=alice)).status_code == 200:
        let_in += 1
    filled = (time.monotonic() - started) * PER_MINUTE / 60
    assert answer.status_code == 429
    assert let_in <= PER_MINUTE + filled + 1
    assert let_in >= PER_MINUTE - 10  # what other tests asked
    assert 0 < int(answer.headers["retry-after-ms"]) <= 60_000 / PER_MINUTE
    assert client.post("/tokenize", json=body, headers=GOOD).status_code == 200


def test_tenants_share_no_prefix(guarded: Server, client: httpx.Client) -> None:
    """By the engine's own count of cached tokens, with trial answers, which keep to theirs."""
    prompt = PROBLEMS[3].prompt * 20
    asked = {"messages": [{"role": "user", "content": prompt}], "seed": 3}
    asked |= {"vllm_xargs": {"exit_policy": "confidence", "exit_min_interval": 0}}

    def hits(key: str, **options: Any) -> float:
        before = guarded.metrics()["vllm:prefix_cache_hits_total"]
        answer = chat(client, {"authorization": f"Bearer {key}"}, **asked, **options)
        assert answer.status_code == 200
        return guarded.metrics()["vllm:prefix_cache_hits_total"] - before

    mine = hits("mine")
    assert hits("yours") == mine, "the same as if nobody had asked before"
    assert hits("mine") > mine
    assert hits("mine", cache_salt="own") == mine
    assert hits("yours", cache_salt="own") == mine


# Hostile bodies (F11, F17).


HOSTILE: dict[str, tuple[dict[str, Any], int]] = {
    "a prompt of 1 MB": ({"prompt": "1+" * 500_000}, 400),
    "10 000 stops": ({"prompt": "1", "stop": ["a"] * 10_000}, 400),
    "10 000 stop ids": ({"prompt": "1", "stop_token_ids": list(range(10_000))}, 400),
    "100 000 sequences": ({"prompt": "1", "n": 100_000}, 400),
    "10 000 prompts": ({"prompt": ["1"] * 10_000}, 400),
    "100 000 messages": ({"messages": [{"role": "user", "content": "1"}] * 30_000}, 400),
    "a million ids": ({"prompt": [1] * 600_000}, 400),
    "10 MB": ({"prompt": "1" * 10_000_000}, 413),
}
NESTED = {
    "deep": b'{"messages": ' + b"[" * 900_000 + b"]" * 900_000 + b"}",
    "never closed": b'{"a":' * 300_000,
    "a deep schema": b'{"prompt": "1", "guided_json": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
    "wide": b'{"messages": [' + b"[]," * 600_000 + b"[]]}",
    "quotes": b'{"a": ' + b'""' * 900_000 + b"}",
    "escapes": b'{"prompt": "' + b"\\\\" * 900_000 + b'"}',
}


class Pulse:
    """Asks a server again and again how it is, and how long that takes."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.seconds: list[float] = []

    def __enter__(self) -> "Pulse":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._over.wait(0.01):
                started = time.monotonic()
                assert client.get(self._url).status_code == 200
                self.seconds.append(time.monotonic() - started)

    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]


def test_f11_hostile_sizes_are_refused_beforehand_and_hold_nobody_up(
    guarded: Server, client: httpx.Client
) -> None:
    before = guarded.metrics()
    url = "/v1/completions"
    with Pulse(f"{guarded.url}/health") as pulse:
        for name, (body, status) in HOSTILE.items():
            path = "/v1/chat/completions" if "messages" in body else url
            answer = client.post(path, json={"model": "demo-base"} | body, headers=GOOD)
            assert answer.status_code == status, (name, answer.text[:300])
            assert len(answer.content) < 2000
            assert answer.json()["error"]["code"] == status
            time.sleep(0.3)
        for name, content in NESTED.items():
            json_headers = GOOD | {"content-type": "application/json"}
            answer = client.post(url, content=content, headers=json_headers)
            assert answer.status_code == 400, (name, answer.text[:300])
            assert len(answer.content) < 2000
            time.sleep(0.3)
    after = guarded.metrics()
    for name in ("stepgrpo_requests_started_total", "vllm:prompt_tokens_total"):
        assert before.get(name) == after.get(name), "the engine was asked"
    assert len(pulse.seconds) > 200
    assert pulse.p99() < SLACK * LAG_SECONDS


MALFORMED = [
    b"nonsense\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /v1/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nX-Request-Id: a\rb\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\n" + b"X: a\r\n" * 50_000 + b"\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
]
BODIES = [
    b"",
    b"nonsense",
    b'{"model": "demo-base", "prompt": "\xff\xfe"}',
    b'{"model": "demo-base", "prompt": "\\ud800"}',
    b'{"model": "demo-base", "prompt": "1"',
    b'{"model": "demo-base", "prompt": "1"} {}',
    b"[]",
    b"null",
    b"NaN",
    b'{"model": ["demo-base"], "prompt": {"a": 1}}',
    b'{"model": "demo-base", "prompt": "1", "max_tokens": 1e999}',
    b'{"model": "demo-base", "prompt": "1", "temperature": NaN}',
    b'{"model": "demo-base", "prompt": "1", "n": ' + b"9" * 5000 + b"}",
    b'{"model": "demo-base", "prompt": [-1]}',
    b'{"model": "demo-base", "prompt": [99999999999999999999999]}',
    b'{"model": "demo-base", "messages": "1", "prompt": null, "stop": 3}',
    '{"model": "demo-base", "prompt": "1"}'.encode("utf-16"),
]
LEAKS = re.compile(r"Traceback|0x[0-9a-f]{4,}|site-packages|\.py\b|/tmp/|/usr/|/home/")


def check_error(status: int, body: bytes, case: Any) -> None:
    assert 400 <= status < 500, (case, body)
    assert status != 429, "this is about something else"
    assert not LEAKS.search(body.decode()), (case, body)
    error = json.loads(body)["error"]
    assert {"message", "type", "code"} <= error.keys(), (case, body)
    assert error["code"] == status, (case, body)


def test_f17_what_is_malformed_gets_an_error_in_openais_shape(
    guarded: Server, client: httpx.Client
) -> None:
    logged = len(guarded.log.read_text())
    for request in MALFORMED:
        status, _, body = raw(guarded.url, request)
        check_error(status, body, request[:80])
    good = [(name.encode(), value.encode()) for name, value in GOOD.items()]
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/invocations"):
        for content in BODIES:
            for kind in ("application/json", "text/plain; charset=\xff"):
                headers = [*good, (b"content-type", kind.encode("latin-1"))]
                answer = client.post(path, content=content, headers=headers)
                check_error(answer.status_code, answer.content, (path, content, kind))
    assert "Traceback" not in guarded.log.read_text()[logged:]
    assert chat(client, GOOD).status_code == 200


# Scrapers (F22).


def series(lines: list[str]) -> set[str]:
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


def cpu_seconds(server: Server) -> float:
    """Of the server's own process: what others do on the machine is not in it."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def scraped_for(server: Server, scrapes: int) -> None:
    """At 10 Hz."""
    with httpx.Client(base_url=server.scraped, timeout=30) as scraper:
        for _ in range(scrapes):
            assert scraper.get("/metrics").status_code == 200
            time.sleep(0.1)


def test_f22_scrapers_and_strangers_make_no_series(guarded: Server, client: httpx.Client) -> None:
    def ask(number: int) -> None:
        assert chat(client, GOOD, seed=number).status_code == 200
        assert client.get(f"/nothing/{number}", headers=GOOD).status_code == 404
        assert client.get(f"/nothing/{number}").status_code == 401
        assert chat(client, GOOD, model=f"model-{number}").status_code == 404

    ask(0)
    before = series(guarded.scrape())
    for number in range(1, 4):
        ask(number)
    for number in range(4, 40):
        client.get(f"/nothing/{number}", headers=GOOD)
        chat(client, GOOD, model=f"model-{number}")
    guarded.wait_idle(IDLE_SECONDS)
    spent = cpu_seconds(guarded)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: scraped_for(guarded, 40), range(2)))
    assert (cpu_seconds(guarded) - spent) / 80 < SCRAPE_SECONDS
    assert series(guarded.scrape()) == before
