"""More load than is admitted, and a drain amid load: who was let in gets all of the response.

All on one server of few seats, which the last test ends.
"""

import concurrent.futures
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from benchmarks.faults.churn import CLOSE, Crowded, crowd
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

pytestmark = pytest.mark.integration

SEATS = 50
FLAGS = ("--max-num-queued-reqs", str(SEATS), "--shutdown-timeout", "300")
ADMITTED = 200  # 1 000 in `python -m benchmarks.faults.churn`
RECOVERY_SECONDS = 6.0  # 2 are promised
PROBES = 1  # at least, when the drain begins; 26 streams go on putting them during all of it
UNREADY_SECONDS = 5.0  # 0.2 are; a busy event loop hears the signal late
ANSWERING, EXITING = 12, 12
LONG = {"model": "demo-base", "max_tokens": 900, "stream": True, "logit_bias": {str(EOS): -100}}
PROBING = {
    "exit_policy": "confidence",
    "exit_threshold": 1.0,
    "exit_min_interval": 1,
    "exit_max_probes": 32,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(
        OURS, tmp_path_factory.mktemp("small") / "server.log", *CALIBRATED, *FLAGS
    ) as server:
        yield server


@pytest.fixture(scope="module")
def crowded(small: Server) -> Crowded:
    """Twice as many clients as seats, until enough have been let in."""
    return crowd(small, 2 * SEATS, lambda so_far: so_far.statuses[200] < ADMITTED)


def test_it_is_ready_once_it_has_generated_a_token(small: Server) -> None:
    ready = httpx.get(f"{small.url}/ready")
    assert (ready.status_code, ready.text) == (200, "ready")
    now = small.metrics()
    assert now["vllm:generation_tokens_total"] == now["stepgrpo_probe_tokens_total"] == 1
    check_accounts(now)


def test_more_sequences_than_seats_is_refused_for_good(small: Server) -> None:
    with openai.OpenAI(base_url=f"{small.url}/v1", api_key="-", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match=f"{SEATS} at once: lower n"):
            client.chat.completions.create(model="demo-base", messages=messages(), n=SEATS + 1)
        prompts = ["1+1"] * (SEATS // 2 + 1)
        with pytest.raises(openai.BadRequestError, match=f"{SEATS + 2} sequences"):
            client.completions.create(model="demo-base", prompt=prompts, n=2, stream=True)
        assert client.completions.create(model="demo-base", prompt=prompts, max_tokens=1).choices


@pytest.mark.slow
def test_f4_twice_the_load_is_refused_and_told_when_to_come_back(crowded: Crowded) -> None:
    assert set(crowded.statuses) == {200, 503}
    assert crowded.statuses[503] >= SEATS  # twice as many came at once as there are seats
    assert crowded.without_retry == 0
    assert crowded.recovery < RECOVERY_SECONDS


@pytest.mark.slow
def test_f5_who_was_let_in_amid_overload_is_served_to_the_end(
    crowded: Crowded, small: Server
) -> None:
    assert crowded.statuses[200] >= ADMITTED
    assert crowded.broken == 0
    assert small.by("stepgrpo_requests_total", "outcome") == {
        "completed": small.metrics()["stepgrpo_requests_started_total"]
    }
    check_accounts(small.metrics())


@pytest.mark.slow
def test_f6_a_drain_ends_what_was_admitted_and_refuses_the_rest(small: Server) -> None:
    """SIGTERM to all of the process group, as a terminal does, amid probes and answers."""
    small.wait_idle(30)  # every seat is needed
    with (
        httpx.Client(base_url=small.url, limits=httpx.Limits(), timeout=600) as client,
        concurrent.futures.ThreadPoolExecutor(SEATS) as pool,
    ):
        started = total(small.metrics(), "requests_started")
        streams = [Stream(body | {"messages": messages(i)}) for i, body in enumerate(long_bodies())]
        futures = [pool.submit(stream.read, client) for stream in streams]
        while not (
            total(now := small.metrics(), "requests_started") >= started + SEATS
            and now["vllm:num_requests_running"] >= SEATS + PROBES
            and sum(stream.answers_since > 0 for stream in streams[:ANSWERING]) >= 10
        ):
            over = [stream for stream in streams if stream.finish_reason]
            assert not over, (len(over), vars(over[0]), now["vllm:num_requests_running"])
            for future in futures:
                if future.done():
                    future.result()  # says why it failed
        os.killpg(small.process.pid, signal.SIGTERM)
        told = time.monotonic()
        while client.get("/ready").status_code != 503:
            assert time.monotonic() < told + UNREADY_SECONDS
        late = client.post("/v1/chat/completions", json=LONG | {"messages": messages()})
        assert (late.status_code, late.headers["connection"]) == (503, "close")
        assert int(late.headers["retry-after"]) > 0
        statuses = set(while_it_listens(small, client))
        for future in futures:
            future.result()
    assert statuses == {("/health", 200), ("/v1/completions", 503)}
    assert [stream.finish_reason for stream in streams] == ["length"] * SEATS
    exits = [stream.exit_reason for stream in streams]
    assert exits[:ANSWERING] == ["budget"] * ANSWERING
    assert exits[-EXITING:] == ["budget"] * EXITING
    assert all(stream.answers_since > told for stream in streams[-EXITING:])
    assert small.process.wait(60) == 0
    small.wait_gone(3)


def long_bodies() -> list[dict[str, Any]]:
    """Streams that answer soon, that probe all the time, and that exit late."""
    early = {"vllm_xargs": {"exit_policy": "budget", "exit_budget_tokens": 8}}
    late = {"vllm_xargs": {"exit_policy": "budget", "exit_budget_tokens": 450}}
    thinking = LONG | {"logit_bias": {str(EOS): -100, CLOSE: -100}}
    kinds = (
        [LONG | early] * ANSWERING
        + [thinking | {"seed": 1, "vllm_xargs": PROBING}] * (SEATS - ANSWERING - EXITING)
        + [thinking | late] * EXITING
    )
    assert len(kinds) == SEATS
    return kinds


def while_it_listens(server: Server, client: httpx.Client) -> Iterator[tuple[str, int]]:
    """Statuses of its liveness and of new requests, until it is gone."""
    new = LONG | {"prompt": "1+1"}
    while server.process.poll() is None:
        try:
            yield "/health", client.get("/health").status_code
            yield "/v1/completions", client.post("/v1/completions", json=new).status_code
        except httpx.TransportError:
            return
        time.sleep(0.1)


class Stream:
    """A stream that must end properly."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        self.answers_since = 0.0
        self.finish_reason = self.exit_reason = ""

    def read(self, client: httpx.Client) -> None:
        events = [""]
        with client.stream("POST", "/v1/chat/completions", json=self.body) as response:
            assert response.status_code == 200
            for line in filter(None, response.iter_lines()):
                events = [events[-1], line]
                if not self.answers_since and re.search(r'"content":"[^"]', line):
                    self.answers_since = time.monotonic()
        assert events[-1] == "data: [DONE]", events
        last = json.loads(events[0].removeprefix("data: "))
        self.finish_reason = last["choices"][0]["finish_reason"]
        self.exit_reason = last["stepgrpo"]["exit_reason"]
