"""F10: an engine that hangs is told from one that works, and nothing is lost when it goes on."""

import concurrent.futures
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.support.chat import messages
from tests.support.models import EOS
from tests.support.servers import Server, check_accounts

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STALLED_SECONDS = 30.0  # 10 are promised
RECOVERY_SECONDS = 20.0
XARGS: tuple[dict[str, Any], ...] = (
    {"exit_policy": "none"},
    {"exit_policy": "confidence"},
    {"exit_policy": "confidence+repetition", "exit_threshold": 1.0},
    {"exit_policy": "budget", "exit_budget_tokens": 200},
)


@contextmanager
def stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_f10_a_hanging_engine_is_not_ready_until_it_goes_on(server: Server) -> None:
    """Streams that are caught in the middle get what they would have got."""
    with (
        httpx.Client(base_url=server.url, timeout=300) as client,
        concurrent.futures.ThreadPoolExecutor(len(XARGS)) as pool,
    ):
        undisturbed = list(pool.map(lambda number: read(client, number), range(len(XARGS))))
        futures = [pool.submit(read, client, number) for number in range(len(XARGS))]
        wait_running(server, len(XARGS))
        with stopped(server.engine()):
            since = time.monotonic()
            assert client.get("/ready").status_code == 200  # it has only just stopped
            while (ready := client.get("/ready")).status_code == 200:
                assert time.monotonic() - since < STALLED_SECONDS
                time.sleep(0.1)
            assert (ready.status_code, ready.text) == (503, "stalled")
            assert "retry-after" in ready.headers
            assert client.get("/health").status_code == 200  # not for a restart, yet
            assert not all(future.done() for future in futures)  # it did hang amid them
        went_on = time.monotonic()
        while client.get("/ready").status_code != 200:
            assert time.monotonic() - went_on < RECOVERY_SECONDS
            time.sleep(0.1)
        assert [future.result() for future in futures] == undisturbed
    server.wait_idle(RECOVERY_SECONDS)
    check_accounts(server.metrics())


def read(client: httpx.Client, number: int) -> tuple[str, str, int]:
    """All text, the finish reason and the tokens of a stream that ends exactly once."""
    body: dict[str, Any] = {
        "model": "demo-base",
        "messages": messages(number),
        "max_tokens": 1800,
        "seed": 7,
        "logit_bias": {str(EOS): -100},
        "stream": True,
        "stream_options": {"include_usage": True},
        "vllm_xargs": XARGS[number],
    }
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.count("[DONE]") == 1
    assert lines[-1] == "[DONE]"
    *events, last = map(json.loads, lines[:-1])
    choices = [choice for event in events for choice in event["choices"]]
    (finish,) = (each["finish_reason"] for each in choices if each["finish_reason"])
    text = "".join(
        (each["delta"].get("reasoning") or "") + (each["delta"].get("content") or "")
        for each in choices
    )
    return text, finish, last["usage"]["completion_tokens"]


def wait_running(server: Server, count: int) -> None:
    deadline = time.monotonic() + 30
    while server.metrics()["vllm:num_requests_running"] < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
