"""Sums on disk: shared, additive, and whole after whatever happens to their process."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.savings.store import Key, SumStore
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.fleet import Served

KEY = Key("demo", "confidence", "exited", "completion", 3)
OTHER = KEY._replace(side="held", group=63)
ONE = Served.one(tokens=10, predicted=20)

# Adds one request at a time and says so, for as long as it lives.
ADDER = f"""
import sys, time
from pathlib import Path
from service.savings.store import Key, SumStore
from stepgrpo_core.fleet import Served
store = SumStore(Path(sys.argv[1]))
for count in range(1, int(sys.argv[2]) + 1):
    store.add(Key(*{tuple(KEY)!r}), Served.one(tokens=10, predicted=20))
    print(count, time.monotonic(), flush=True)
    time.sleep(0.002)
store.close()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sums.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SumStore]:
    made = SumStore(path)
    yield made
    made.close()


def adder(path: Path, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", ADDER, str(path), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_sums_add_by_key_and_survive_a_restart(path: Path) -> None:
    for count in (1, 2):
        store = SumStore(path)
        store.add(KEY, ONE)
        store.add(KEY, ONE)
        store.add(OTHER, ONE)
        expected = {KEY: Served(2 * count, 20 * count, 40 * count, 800 * count, 400 * count)}
        assert store.read() == expected | {OTHER: Served(count, *(count * v for v in ONE[1:]))}
        store.close()


def test_without_a_file_sums_live_as_long_as_the_process() -> None:
    store = SumStore()
    store.add(KEY, ONE)
    assert store.read() == {KEY: ONE}
    store.close()


def test_what_was_added_is_on_disk_within_a_second_or_so(path: Path, store: SumStore) -> None:
    store.add(KEY, ONE)
    deadline = time.monotonic() + 10
    while not (rows := sqlite3.connect(path).execute("SELECT * FROM served").fetchall()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert rows == [(*KEY, *ONE)]


def test_processes_add_to_each_others_sums(path: Path, store: SumStore) -> None:
    both = [adder(path, 300), adder(path, 200)]
    for process in both:
        process.communicate()
        assert process.returncode == 0
    assert store.read()[KEY].requests == 500


def test_a_kill_loses_a_second_at_most_and_never_half_a_sum(path: Path) -> None:
    process = adder(path, 100_000)
    assert process.stdout is not None
    lines = []
    while len(lines) < 1000:
        lines.append(process.stdout.readline().split())
    process.send_signal(signal.SIGKILL)
    lines += [line.split() for line in process.communicate()[0].splitlines()]
    store = SumStore(path)
    found = store.read()[KEY]
    store.close()
    assert found == Served(*(found.requests * each for each in ONE))
    last = float(lines[-1][1])
    before = sum(float(when) < last - 3 for _, when in lines)  # three times what is promised
    assert before <= found.requests <= len(lines) + 1


def test_a_full_disk_loses_nothing(path: Path) -> None:
    """A limit on file sizes stands in for the disk; it is lifted before the end."""
    full = """
import resource, signal, sys, time
from pathlib import Path
from service.savings.store import Key, SumStore
from stepgrpo_core.fleet import Served
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SumStore(Path(sys.argv[1]))
size = Path(sys.argv[1] + "-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
for group in range(64):
    store.add(Key("demo", "confidence", "exited", "completion", group), Served(1, 2, 3, 4, 5))
while not store.failures:
    time.sleep(0.05)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.close()
"""
    subprocess.run([sys.executable, "-c", full, str(path)], check=True)
    store = SumStore(path)
    assert list(store.read().values()) == [Served(1, 2, 3, 4, 5)] * 64
    store.close()


def test_secrets_are_made_once_for_all_processes(path: Path, store: SumStore) -> None:
    second = SumStore(path)
    assert store.secret("holdout") == second.secret("holdout") == store.secret("holdout")
    assert len(store.secret("holdout")) == 32
    assert store.secret("other") != store.secret("holdout")
    second.close()


def test_a_file_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("a shopping list, longer than the header of a database is, by far; " * 9)
    before = path.read_text()
    with pytest.raises(InvalidSetting, match=str(path)):
        SumStore(path)
    assert path.read_text() == before


def test_a_file_of_another_version_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(InvalidSetting, match="version 99"):
        SumStore(path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="can be written"):
        SumStore(tmp_path / "none" / "sums.sqlite")
