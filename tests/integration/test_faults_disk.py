"""F21: a root that cannot be written to, few file descriptors, a full disk. It serves on."""

import contextlib
import shutil
import socket
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.faults.fault_injection import Walls
from tests.support.chat import messages
from tests.support.servers import (
    CALIBRATED,
    OURS,
    Server,
    check_accounts,
    running,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DESCRIPTORS = 256
WRITTEN_SECONDS = 15.0


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Walls:
    disk = tmp_path_factory.mktemp("walls") / "disk"
    return Walls(disk, mebibytes=64, descriptors=DESCRIPTORS)


@pytest.fixture(scope="module")
def walled(walls: Walls) -> Iterator[Server]:
    """With a holdout, whose sums are on the small disk."""
    with running(
        (*walls.command, *OURS),
        walls.disk.parent / "server.log",
        *CALIBRATED,
        *("--exit-policy", "confidence", "--exit-holdout", "0.5"),
        *("--exit-state", str(walls.disk / "sums.sqlite")),
        more=walls.environment,
    ) as server:
        yield server


def ask(server: Server, index: int) -> dict[str, Any]:
    body = {"model": "demo-base", "messages": messages(index), "max_tokens": 300, "seed": 1}
    response = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_f21_a_root_that_cannot_be_written_to(walls: Walls, walled: Server) -> None:
    root = Path(f"/proc/{walled.process.pid}/root")
    with pytest.raises(OSError, match="Read-only"):
        (root / walls.disk.parent.relative_to("/") / "new").touch()
    assert ask(walled, 0)["stepgrpo"]["policy"] == "confidence"


def test_f21_more_connections_than_descriptors(walled: Server) -> None:
    """Who is connected already is served; who has to wait is served afterwards."""
    address = urlsplit(walled.url)
    assert address.hostname
    assert address.port
    with httpx.Client(base_url=walled.url, timeout=60) as early:
        assert early.get("/ready").status_code == 200
        with contextlib.ExitStack() as crowd:
            for _ in range(DESCRIPTORS + 50):
                with contextlib.suppress(TimeoutError):
                    one = socket.create_connection((address.hostname, address.port), timeout=1)
                    crowd.enter_context(one)
            wait_full(walled)
            body = {"model": "demo-base", "messages": messages(1), "max_tokens": 50}
            assert early.post("/v1/chat/completions", json=body).status_code == 200
    assert ask(walled, 2)["choices"][0]["finish_reason"]


def wait_full(server: Server) -> None:
    """Until it has no descriptor left."""
    deadline = time.monotonic() + 30
    while len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) < DESCRIPTORS:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_f21_a_full_disk_loses_nothing_and_stops_nobody(walls: Walls, walled: Server) -> None:
    disk = walls.seen_from_outside(walled.process.pid)
    written(walled, disk)  # what came before
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(4096))
    before = on_disk(disk)
    for index in range(6):
        assert ask(walled, index)["choices"][0]["finish_reason"]
    deadline = time.monotonic() + WRITTEN_SECONDS
    while "Savings wait in memory" not in (walls.disk.parent / "server.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert on_disk(disk) == before
    # What is shown has them all the same.
    savings = httpx.get(f"{walled.url}/v1/stepgrpo/savings")
    assert savings.status_code == 200
    (row,) = savings.json()["data"]
    assert row["requests"] + row["requests_compared"] == before + 6
    assert walled.metrics()["stepgrpo_holdout_requests"] == before + 6
    filler.unlink()
    written(walled, disk)
    assert on_disk(disk) == before + 6
    check_accounts(walled.metrics())


def on_disk(disk: Path) -> int:
    """Requests in the sums, as another process would find them after a kill."""
    with tempfile.TemporaryDirectory() as copy:
        for name in ("sums.sqlite", "sums.sqlite-wal"):
            shutil.copy(disk / name, copy)
        return requests_in(Path(copy) / "sums.sqlite")


def requests_in(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as found:
        (count,) = found.execute(
            "SELECT COALESCE(SUM(value), 0) FROM sums "
            "WHERE series LIKE 'holdout/%/completion' AND name = 'requests'"
        ).fetchone()
    return int(count)


def written(server: Server, disk: Path) -> None:
    """Until all that was counted is on disk."""
    server.wait_idle(10)
    counted = server.metrics()["stepgrpo_requests_total"]
    deadline = time.monotonic() + WRITTEN_SECONDS
    while on_disk(disk) != counted:
        assert time.monotonic() < deadline
        time.sleep(0.1)
