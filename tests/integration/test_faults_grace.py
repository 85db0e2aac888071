"""F7 and F20: the time to drain is over before the requests are, and a clock that jumps.

When their time is over each client hears of it; no jump makes it so.
"""

import concurrent.futures
import itertools
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from benchmarks.faults.fault_injection import Clock
from tests.support.chat import messages
from tests.support.models import EOS
from tests.support.servers import (
    CALIBRATED,
    OURS,
    Server,
    check_accounts,
    running,
    total,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STILL_SECONDS = 0.5  # into the drain; the streams last seven
END_SECONDS = 30.0
DAY = 86_400
ONE_TOKEN = {"model": "demo-base", "prompt": "1+1", "max_tokens": 1}
Answer = tuple[Any, Any]
"""The message and the block of a response."""
POLICIES = ("none", "confidence", "repetition", "confidence+repetition")


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def patient(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With ten minutes to drain, and a clock that can be shifted."""
    log = tmp_path_factory.mktemp("patient") / "server.log"
    with running(
        OURS, log, *CALIBRATED, "--shutdown-timeout", "600", more=clock.environment
    ) as server:
        yield server


def test_f20_a_clock_that_jumps_changes_no_answer(patient: Server, clock: Clock) -> None:
    """A day ahead, a day back: no probe times out, nothing is counted twice."""
    bodies = [
        endless(policy) | {"max_tokens": 400, "seed": index}
        for index, policy in enumerate(POLICIES)
    ]
    with (
        httpx.Client(base_url=patient.url, timeout=120) as client,
        concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool,
    ):
        for _ in range(3):  # float32 sums depend on the batch: rarely a token differs by itself
            before = list(pool.map(lambda body: answer(client, body), bodies))
            found = amid_jumps(
                clock, client, [pool.submit(answer, client, each) for each in bodies]
            )
            if found == before:
                break
        assert found == before
    patient.wait_idle(10)
    check_accounts(patient.metrics())
    assert not patient.by("stepgrpo_probes_failed_total", "policy").total()


def amid_jumps(
    clock: Clock, client: httpx.Client, futures: list[concurrent.futures.Future[Answer]]
) -> list[Answer]:
    """What comes while the clock jumps to and fro."""
    for jump in itertools.cycle((DAY, -DAY)):
        clock.shift(jump)
        time.sleep(0.2)
        created = client.post("/v1/completions", json=ONE_TOKEN).json()["created"]
        assert abs(created - time.time() - jump) < DAY / 2  # it does see the jump
        if all(future.done() for future in futures):
            break
    clock.shift(0)
    return [future.result() for future in futures]


def answer(client: httpx.Client, body: dict[str, Any]) -> Answer:
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    found = response.json()
    return found["choices"][0]["message"], found["stepgrpo"]


def test_f7_a_second_signal_ends_at_once_and_tells_every_client(
    patient: Server, clock: Clock
) -> None:
    """Streams end with their usage and an error, a whole response is a 503, nothing lives on."""
    with (
        httpx.Client(base_url=patient.url, timeout=120) as client,
        concurrent.futures.ThreadPoolExecutor(2 * len(POLICIES) + 2) as pool,
    ):
        started = total(patient.metrics(), "requests_started")
        streams = [pool.submit(stream, client, *each) for each in asked()]
        whole = pool.submit(client.post, "/v1/chat/completions", json=endless("none"))
        responses = pool.submit(last_of_responses, client)
        while total(patient.metrics(), "requests_started") <= started + len(streams) + 1:
            time.sleep(0.02)
        time.sleep(0.7)  # so that each has delivered something
        os.kill(patient.process.pid, signal.SIGTERM)
        clock.shift(DAY)  # the ten minutes are not over (F20)
        time.sleep(STILL_SECONDS)
        assert patient.process.poll() is None
        pending: list[concurrent.futures.Future[Any]] = [*streams, whole, responses]
        assert not any(future.done() for future in pending)
        os.kill(patient.process.pid, signal.SIGTERM)
        told = time.monotonic()
        for future in streams:
            usage, error, tokens = future.result()
            assert usage["choices"] == []
            assert usage["usage"]["completion_tokens"] == tokens > 0
            assert error["code"] == 503
            assert "shutting down" in error["message"]
        assert (responses.result()["type"], responses.result()["code"]) == ("error", "503")
        assert whole.result().status_code == 503
        assert "retry-after" in whole.result().headers
    assert patient.process.wait(told + END_SECONDS - time.monotonic()) == 0
    patient.wait_gone(told + END_SECONDS - time.monotonic())


def endless(policy: str) -> dict[str, Any]:
    return {
        "model": "demo-base",
        "messages": messages(POLICIES.index(policy)),
        "max_tokens": 1900,
        "logit_bias": {str(EOS): -100},
        "vllm_xargs": {"exit_policy": policy},
    }


def asked() -> list[tuple[str, dict[str, Any]]]:
    more = {"stream": True, "stream_options": {"include_usage": True}, "return_token_ids": True}
    chats = [("chat/completions", endless(policy) | more) for policy in POLICIES]
    texts = []
    for _, body in chats:
        prompt = {"prompt": body["messages"][0]["content"]}
        rest = {name: value for name, value in body.items() if name != "messages"}
        texts.append(("completions", rest | prompt))
    return chats + texts


def last_of_responses(client: httpx.Client) -> dict[str, Any]:
    """The last event of a stream of the Responses API."""
    body = {
        "model": "demo-base",
        "input": messages(0)[0]["content"],
        "max_output_tokens": 1900,
        "stream": True,
        "vllm_xargs": {"exit_policy": "none"},
        "logit_bias": {str(EOS): -100},
    }
    with client.stream("POST", "/v1/responses", json=body) as response:
        assert response.status_code == 200
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("data: "))
    return found


def stream(
    client: httpx.Client, route: str, body: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The last chunk, the error behind it, and how many tokens came."""
    with client.stream("POST", f"/v1/{route}", json=body) as response:
        assert response.status_code == 200
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    *events, usage, error = map(json.loads, lines[:-1])
    tokens = sum(len(c.get("token_ids") or ()) for event in events for c in event["choices"])
    return usage, error["error"], tokens
