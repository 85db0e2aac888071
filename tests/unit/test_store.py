"""Sums on disk: shared, additive, and whole after whatever happens to their process."""

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.savings.state.store import KEPT, Key, RecentKey, SumStore, SwitchedOff
from stepgrpo_core.errors import InvalidSetting

KEY = Key("holdout/exited/completion", "demo", "confidence", 3)
OTHER = KEY._replace(series="holdout/held/completion", group=63)
ONE = {"requests": 1.0, "tokens": 10.0}

# Adds one request at a time and says so, for as long as it lives.
ADDER = f"""
import sys, time
from pathlib import Path
from service.savings.state.store import Key, SumStore
store = SumStore(Path(sys.argv[1]))
for count in range(1, int(sys.argv[2]) + 1):
    store.add(Key(*{tuple(KEY)!r}), {ONE!r})
    print(count, time.monotonic(), flush=True)
    time.sleep(0.002)
store.close()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sums.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SumStore]:
    with contextlib.closing(SumStore(path)) as made:
        yield made


def adder(path: Path, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", ADDER, str(path), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_sums_add_by_key_and_survive_a_restart(path: Path) -> None:
    for count in (1, 2):
        store = SumStore(path)
        store.add(KEY, ONE)
        store.add(KEY, ONE)
        store.add(OTHER, ONE)
        twice = {name: 2 * count * value for name, value in ONE.items()}
        once = {name: count * value for name, value in ONE.items()}
        assert store.read("holdout/") == {KEY: twice, OTHER: once}
        assert store.read(OTHER.series) == {OTHER: once}
        store.close()


def test_without_a_file_sums_live_as_long_as_the_process() -> None:
    store = SumStore()
    store.add(KEY, ONE)
    assert store.read("") == {KEY: ONE}
    store.close()


def test_what_was_added_is_on_disk_within_a_second_or_so(path: Path, store: SumStore) -> None:
    store.add(KEY, ONE)
    deadline = time.monotonic() + 10
    while not (rows := sqlite3.connect(path).execute("SELECT * FROM sums").fetchall()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert rows == [(*KEY, *each) for each in ONE.items()]


def test_processes_add_to_each_others_sums(path: Path, store: SumStore) -> None:
    both = [adder(path, 300), adder(path, 200)]
    for process in both:
        process.communicate()
        assert process.returncode == 0
    store.flush()
    assert store.read("")[KEY]["requests"] == 500


def test_a_kill_loses_a_second_at_most_and_never_half_a_sum(path: Path) -> None:
    process = adder(path, 100_000)
    assert process.stdout is not None
    lines: list[list[str]] = []
    while len(lines) < 1000:
        lines.append(process.stdout.readline().split())
    process.send_signal(signal.SIGKILL)
    lines += [line.split() for line in process.communicate()[0].splitlines()]
    store = SumStore(path)
    found = store.read("")[KEY]
    requests = found["requests"]
    store.close()
    assert found == {name: requests * each for name, each in ONE.items()}
    last = float(lines[-1][1])
    before = sum(float(when) < last - 3 for _, when in lines)  # three times what is promised
    assert before <= requests <= len(lines) + 1


def test_a_full_disk_loses_nothing(path: Path) -> None:
    """A limit on file sizes stands in for the disk; it is lifted before the end."""
    full = """
import resource, signal, sys, time
from pathlib import Path
from service.savings.state.store import Key, RecentKey, SumStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SumStore(Path(sys.argv[1]))
size = Path(sys.argv[1] + "-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
for group in range(64):
    store.add(Key("a", "demo", "confidence", group), {"requests": 1, "tokens": 2})
store.append(RecentKey("scores", "demo", "confidence"), 7)
while not store.failures:
    time.sleep(0.05)
assert list(store.read("a").values()) == [{"requests": 1, "tokens": 2}] * 64
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.close()
"""
    subprocess.run([sys.executable, "-c", full, str(path)], check=True)
    store = SumStore(path)
    assert list(store.read("a").values()) == [{"requests": 1, "tokens": 2}] * 64
    assert list(store.recent("scores").values()) == [[7]]
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
    with pytest.raises(InvalidSetting, match="writable folder"):
        SumStore(tmp_path / "none" / "sums.sqlite")


def test_the_newest_values_of_a_series_are_kept_by_model_and_policy(path: Path) -> None:
    one, other = RecentKey("scores", "demo", "confidence"), RecentKey("scores", "demo", "budget")
    for start in (0, KEPT // 2, KEPT):
        store = SumStore(path)
        store.append(one, *range(start, start + KEPT // 2))
        store.append(other, 1.5)
        store.close()
    store = SumStore(path)
    assert store.recent("scores") == {one: [*range(KEPT // 2, 3 * KEPT // 2)], other: [1.5] * 3}
    assert store.recent("others") == {}
    store.forget(one)
    assert store.recent("scores") == {other: [1.5] * 3}
    store.close()


def test_what_is_switched_off_stays_off_for_all_until_it_is_switched_on(path: Path) -> None:
    first, second = SumStore(path), SumStore(path)
    off = SwitchedOff("demo", "confidence", 12.5, "reasons")
    assert first.switch_off(off)
    first.flush()
    second.flush()
    assert not second.switch_off(off._replace(since=13.0))
    assert second.switched_off() == [off]
    assert second.switch_on("demo", "confidence")
    assert not first.switch_on("demo", "confidence")
    assert first.switched_off() == []
    first.close()
    second.close()
