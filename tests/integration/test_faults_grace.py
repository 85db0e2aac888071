"""F7: the time to drain is over before the requests are. Each client hears of it."""

import concurrent.futures
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.servers import CALIBRATED, OURS, start, stop, total, wait_up
from tests.integration.test_accounts import END
from tests.integration.test_server import messages

pytestmark = pytest.mark.integration

STILL_SECONDS = 2.0  # into the drain
END_SECONDS = 30.0
POLICIES = ("none", "confidence", "repetition", "confidence+repetition")


def test_f7_a_second_signal_ends_at_once_and_tells_every_client(tmp_path: Path) -> None:
    """Streams end with their usage and an error, a whole response is a 503, nothing lives on."""
    server = start(OURS, tmp_path / "server.log", *CALIBRATED, "--shutdown-timeout", "600")
    try:
        wait_up(server)
        with (
            httpx.Client(base_url=server.url, timeout=120) as client,
            concurrent.futures.ThreadPoolExecutor(2 * len(POLICIES) + 1) as pool,
        ):
            streams = [pool.submit(stream, client, *each) for each in asked()]
            whole = pool.submit(client.post, "/v1/chat/completions", json=endless("none"))
            while total(server.metrics(), "requests_started") < len(streams) + 1:
                time.sleep(0.02)
            time.sleep(1)  # so that each has delivered something
            os.kill(server.process.pid, signal.SIGTERM)
            time.sleep(STILL_SECONDS)
            assert server.process.poll() is None
            assert not any(future.done() for future in (*streams, whole))
            os.kill(server.process.pid, signal.SIGTERM)
            told = time.monotonic()
            for future in streams:
                usage, error, tokens = future.result()
                assert usage["choices"] == []
                assert usage["usage"]["completion_tokens"] == tokens > 0
                assert error["code"] == 503
                assert "shutting down" in error["message"]
            assert whole.result().status_code == 503
            assert "retry-after" in whole.result().headers
        assert server.process.wait(told + END_SECONDS - time.monotonic()) == 0
        server.wait_gone(told + END_SECONDS - time.monotonic())
    finally:
        stop(server)


def endless(policy: str) -> dict[str, Any]:
    return {
        "model": "demo-base",
        "messages": messages(POLICIES.index(policy)),
        "max_tokens": 1900,
        "logit_bias": {END: -100},
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
