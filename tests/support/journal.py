"""Requests to the server with a log, and the log lines that they write."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.support.chat import EXIT, body_of
from tests.support.models import PROBLEMS
from tests.support.servers import ROOT

KEY = "canary-in-the-api-key"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECONDS = 30.0
CHAT = "/v1/chat/completions"


def chat(client: httpx.Client, index: int = 0, xargs: Any = EXIT, **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    answer = client.post(CHAT, json=body_of(index, xargs, **more), headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def exited(client: httpx.Client, **more: Any) -> httpx.Response:
    """Return the response to a problem whose thinking the policy truncates."""
    for index in range(len(PROBLEMS)):
        answer = chat(client, index, **more)
        if answer.json()["stepgrpo"]["exit_reason"] == "confident":
            return answer
    raise AssertionError("no problem was exited")


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines() if line]


def lines_of(path: Path, name: str, count: int = 1) -> list[dict[str, Any]]:
    """Return the lines of a request, waiting until they are written."""
    deadline = time.monotonic() + SECONDS
    while len(found := [line for line in lines(path) if line["id"] == name]) < count:
        assert time.monotonic() < deadline, f"{len(found)} lines of {name}"
        time.sleep(0.05)
    assert len(found) == count
    return found


def explain(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", "explain", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
