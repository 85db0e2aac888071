"""What the log keeps when things go wrong. Its last test stops the server, so this file is last."""

import json
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.support.chat import EXIT, body_of, messages
from tests.support.journal import (
    CHAT,
    KEY,
    SECONDS,
    TRACE,
    chat,
    exited,
    lines,
    lines_of,
)
from tests.support.models import PROBLEMS
from tests.support.observing.collector import Collector
from tests.support.servers import Server

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_f19_canaries_are_found_nowhere(
    logged: Server, client: httpx.Client, path: Path, collector: Collector
) -> None:
    """Of prompt, reasoning, answer, pattern and API key, in log, traces, metrics, server's log and
    the messages of errors."""
    canary = "canary in the prompt"
    asked = [{"role": "system", "content": canary}, *messages(0)]
    answers = [
        exited(client).json(),
        chat(client, 0, EXIT | {"exit_policy": "pattern", "exit_pattern": "canary.*"}).json(),
        chat(client, messages=asked).json(),
    ]
    secrets = [canary, KEY, "canary.*", PROBLEMS[0].prompt]
    for answer in answers:
        message = answer["choices"][0]["message"]
        text = (message["reasoning"] or "") + (message["content"] or "")
        secrets += [line for line in text.splitlines() if len(line) > 5]
    assert len(secrets) > 8
    bad = body_of(0, {"exit_policy": "confidense"}, messages=asked)
    long = body_of(0, messages=[{"role": "user", "content": f"{canary} " * 2000}])
    errors = [
        client.post(CHAT, json=bad),
        client.post(CHAT, json=long),
        client.post(CHAT, json=body_of(0, messages=asked, model="other")),
        client.post(CHAT, json=body_of(0, messages=asked, temperature=-3)),
        client.post(CHAT, json=bad, headers={"Authorization": f"Bearer not-{KEY}"}),
        client.post(f"{CHAT}/chatcmpl-x/finish-thinking"),
    ]
    assert [error.status_code for error in errors] == [400, 400, 404, 400, 401, 404]
    lines_of(path, answers[-1]["id"])
    collector.wait(TRACE, bool)
    places = {
        "request log": path.read_text(),
        "metrics": "\n".join(logged.scrape()),
        "server's log": logged.log.read_text(),
        "traces": collector.raw.decode(errors="replace"),
        **{f"error {each.status_code}": each.text for each in errors},
    }
    assert "stepgrpo_requests_total" in places["metrics"]
    for place, text in places.items():
        found = [secret for secret in secrets if secret in text]
        assert not found, place


def test_the_log_follows_its_name(client: httpx.Client, path: Path) -> None:
    moved = path.with_suffix(".1")
    first = chat(client).json()["id"]
    lines_of(path, first)
    path.rename(moved)
    second = chat(client).json()["id"]
    lines_of(path, second)
    assert [line["id"] for line in lines(path)] == [second]
    assert lines(moved)[-1]["id"] == first


def test_f21_a_full_disk_fails_no_request(logged: Server, client: httpx.Client, path: Path) -> None:
    kept, other = path.with_suffix(".2"), path.with_suffix(".new")
    path.rename(kept)
    path.symlink_to("/dev/full")
    for index in range(5):
        chat(client, index)
    deadline = time.monotonic() + SECONDS
    while logged.metrics()["stepgrpo_log_lines_dropped_total"] < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    other.symlink_to(path.with_suffix(".3"))
    other.rename(path)
    name = chat(client).json()["id"]
    lines_of(path, name)
    assert logged.metrics()["stepgrpo_log_lines_dropped_total"] == 5
    assert "No space left on device; lines are dropped" in logged.log.read_text()


def test_what_runs_when_the_server_is_stopped_has_its_line(
    logged: Server, client: httpx.Client, path: Path
) -> None:
    """The last test of this server."""
    with client.stream("POST", CHAT, json=body_of(4, stream=True)) as response:
        events = response.iter_lines()
        name = json.loads(next(events).removeprefix("data: "))["id"]
        logged.process.send_signal(signal.SIGTERM)
        assert list(events)[-2] == "data: [DONE]"
    assert logged.process.wait(SECONDS) == 0
    (line,) = lines_of(path, name)
    assert line["outcome"] == "completed"
