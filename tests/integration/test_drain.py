"""A drain in seconds; under full load it is F6 of test_faults_load."""

import concurrent.futures
import json
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.support.chat import messages
from tests.support.servers import CALIBRATED, OURS, Server, check_accounts, running, total

pytestmark = pytest.mark.integration

STREAMS = 12
BODY = {
    "model": "demo-base",
    "stream": True,
    "max_tokens": 900,
    "vllm_xargs": {"exit_policy": "confidence"},
}


def test_a_drain_ends_what_was_admitted_and_refuses_the_rest(tmp_path: Path) -> None:
    """SIGTERM amid streams with exits: every one completes, new ones get 503, the status is 0."""
    with (
        running(OURS, tmp_path / "server.log", *CALIBRATED) as server,
        concurrent.futures.ThreadPoolExecutor(STREAMS) as pool,
    ):
        check_accounts(server.metrics())
        streams = [pool.submit(streamed, server, index) for index in range(STREAMS)]
        deadline = time.monotonic() + 20
        while total(server.metrics(), "requests_started") < STREAMS:
            assert time.monotonic() < deadline, "the requests did not start"
            time.sleep(0.02)
        os.kill(server.process.pid, signal.SIGTERM)
        time.sleep(0.2)
        late = httpx.post(f"{server.url}/v1/chat/completions", json=BODY | {"messages": messages()})
        assert late.status_code == 503
        reasons = [each.result() for each in streams]
        assert set(reasons) <= {"confident", "natural", "length"}
        assert "confident" in reasons
        assert server.process.wait(60) == 0
        server.wait_gone(3)


def streamed(server: Server, index: int) -> str:
    """The exit reason in the last chunk of a stream that must end properly."""
    url, body = f"{server.url}/v1/chat/completions", BODY | {"messages": messages(index)}
    with httpx.stream("POST", url, json=body, timeout=120) as response:
        assert response.status_code == 200
        events = [line for line in response.iter_lines() if line]
    assert events[-1] == "data: [DONE]"
    return str(json.loads(events[-2].removeprefix("data: "))["stepgrpo"]["exit_reason"])
