"""SIGHUP reopens files, and nothing else happens."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from service.access import keys
from service.access.keys import KeyRing, digest_of
from service.process.sighup import reopen_on_sighup
from service.records.log_writer import RequestLog
from service.savings.measurement import SavingsMeasurement
from service.savings.plan import Plan
from service.savings.state.store import SumStore


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_log_keys_and_state_file_are_opened_anew(tmp_path: Path) -> None:
    """Files are reopened before a log line, request or poll would have done it."""
    log_path, key_path, state = (tmp_path / name for name in ("log", "keys", "sums.sqlite"))
    key_path.write_text("one\n")
    ring, log = KeyRing((), key_path), RequestLog(log_path)
    log.start(lambda _: None)
    evidence = SavingsMeasurement(Plan(holdout=0.5, state=state), SumStore(state))

    async def play() -> None:
        reopen_on_sighup(ring, log, evidence)
        log.write({"line": 1})
        await until(lambda: log_path.stat().st_size)
        for path in (log_path, state):
            path.rename(path.with_suffix(".old"))
        await until(evidence.warnings)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(log_path.exists)
        await until(lambda: not evidence.warnings())
        log.write({"line": 2})
        await until(lambda: "2" in log_path.read_text())

    asyncio.run(play())
    log.close()
    evidence.close()
    assert state.exists()
    assert log_path.with_suffix(".old").read_text() == '{"line":1}\n'
    assert log_path.read_text() == '{"line":2}\n'


def test_keys_are_read_again_though_the_file_looks_as_before(tmp_path: Path) -> None:
    """As on mounts where modification times and inodes do not change."""
    path = tmp_path / "keys"
    path.write_text("one\n")
    ring = KeyRing((), path)
    path.write_text("two\n")
    ring._seen = keys._state_of(path)
    ring.refresh(path)
    assert not ring.contains(digest_of("two"))

    async def play() -> None:
        reopen_on_sighup(ring, None, None)
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
        await until(lambda: ring._seen == ())

    asyncio.run(play())
    ring.refresh(path)
    assert ring.contains(digest_of("two"))


def test_a_line_torn_before_stays_ended(tmp_path: Path) -> None:
    """The reopened file may be the same one, and lines must continue after its end."""
    path = tmp_path / "log"
    log = RequestLog(path)
    path.write_bytes(b'{"half":')
    log._torn = True
    log.start(lambda _: None)
    log.reopen()
    log.write({"line": 1})
    log.close()
    assert path.read_text() == '{"half":\n{"line":1}\n'
