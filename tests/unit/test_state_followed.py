"""A state file that is removed or replaced under a server is followed, and nothing counts twice."""

import contextlib
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.savings.state import store as stores
from service.savings.state.store import Key, SumStore, SwitchedOff

KEY = Key("holdout/exited/completion", "demo", "confidence", 3)
ONE = {"requests": 1.0, "tokens": 10.0}


def requests(path: Path) -> float:
    with contextlib.closing(sqlite3.connect(path)) as file:
        (found,) = file.execute("SELECT sum(value) FROM sums WHERE name = 'requests'").fetchone()
    return float(found or 0)


def journal(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]


def removed(path: Path) -> None:
    path.unlink()


def removed_with_its_journal(path: Path) -> None:
    for each in (path, *journal(path)):
        each.unlink()


def moved(path: Path) -> None:
    path.rename(path.with_suffix(".old"))


def moved_with_its_journal(path: Path) -> None:
    for each in (*journal(path), path):
        each.rename(each.with_name(f"old-{each.name}"))


def replaced_by_an_empty_file(path: Path) -> None:
    other = path.with_suffix(".new")
    other.touch()
    other.rename(path)


def replaced_by_an_empty_store(path: Path) -> None:
    SumStore(path.with_suffix(".new")).close()
    path.with_suffix(".new").rename(path)


def replaced_by_a_backup(path: Path) -> None:
    """Made by SQLite, with all that was written by then; what comes after is not in it."""
    store, copy = sqlite3.connect(path), sqlite3.connect(path.with_suffix(".new"))
    with contextlib.closing(store), contextlib.closing(copy):
        store.backup(copy)
    path.with_suffix(".new").rename(path)


def journal_removed(path: Path) -> None:
    for each in journal(path):
        each.unlink()


def folder_replaced(path: Path) -> None:
    path.parent.rename(path.parent.with_name("old"))
    path.parent.mkdir()


def link_turned(path: Path) -> None:
    """From the file to another, as of mounted volumes."""
    path.rename(path.with_suffix(".old"))
    path.symlink_to(path.with_suffix(".elsewhere"))


KINDS = (
    removed,
    removed_with_its_journal,
    moved,
    moved_with_its_journal,
    replaced_by_an_empty_file,
    replaced_by_an_empty_store,
    replaced_by_a_backup,
    journal_removed,
    folder_replaced,
    link_turned,
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stores, "EVERY_SECONDS", 0.05)
    folder = tmp_path / "state"
    folder.mkdir()
    return folder / "sums.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SumStore]:
    with contextlib.closing(SumStore(path)) as made:
        yield made


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def followed(store: SumStore) -> Callable[[], bool]:
    return lambda: any("removed or replaced" in each for each in store.warnings())


@pytest.mark.parametrize("change", KINDS)
def test_it_is_followed_and_nothing_is_lost_or_counts_twice(
    path: Path,
    store: SumStore,
    change: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(5):
        store.add(KEY, ONE)
        store.flush()
    with caplog.at_level(logging.INFO, "vllm.stepgrpo"):
        change(path)
        store.add(KEY, ONE)
        until(followed(store))
        store.add(KEY, ONE)
        until(lambda: path.exists() and requests(path) == 7)
        assert store.read("")[KEY] == {"requests": 7.0, "tokens": 70.0}
        (line,) = (each.message for each in caplog.records if str(path) in each.message)
    assert "removed or replaced" in line
    assert store.problem is None
    store.close()
    assert requests(path) == 7


# Not without its journal alone: SQLite's own users of one file then no longer see each other.
@pytest.mark.parametrize("change", [each for each in KINDS if each is not journal_removed])
def test_servers_that_share_it_follow_it_together(
    path: Path, store: SumStore, change: Callable[[Path], None]
) -> None:
    other = SumStore(path)
    for each in (store, other):
        each.add(KEY, ONE)
        each.flush()
    store.flush()
    change(path)
    for each in (store, other):
        until(followed(each))
        each.add(KEY, ONE)
    until(lambda: requests(path) == 4)
    for each in (store, other):
        until(lambda each=each: each.read("")[KEY]["requests"] == 4)  # type: ignore[misc]
    other.close()
    store.close()
    assert requests(path) == 4


def test_what_was_moved_away_is_whole(path: Path, store: SumStore) -> None:
    """All that was written is in it, its journal's part too."""
    for _ in range(5):
        store.add(KEY, ONE)
        store.flush()
    moved(path)
    until(followed(store))
    store.add(KEY, ONE)
    until(lambda: requests(path) == 6)
    assert requests(path.with_suffix(".old")) == 5


def test_a_journal_of_the_old_file_is_not_played_into_the_new_one(
    path: Path, store: SumStore
) -> None:
    fresh = path.with_suffix(".new")
    SumStore(fresh).close()
    for _ in range(5):
        store.add(KEY, ONE)
        store.flush()
    fresh.rename(path)
    until(followed(store))
    until(lambda: requests(path) == 5)
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_an_older_copy_gets_what_it_lacks(path: Path, store: SumStore) -> None:
    for count in range(5):
        store.add(KEY, ONE)
        store.flush()
        if count == 2:
            shutil.copy(path, path.with_suffix(".copy"))
            shutil.copy(journal(path)[0], path.with_suffix(".copy-wal"))
    assert requests(path.with_suffix(".copy")) == 3
    path.with_suffix(".copy").rename(path)
    until(followed(store))
    store.add(KEY, ONE)
    until(lambda: requests(path) == 6)
    store.close()
    assert requests(path) == 6


def test_a_folder_that_comes_back_has_what_was_counted_meanwhile(
    path: Path, store: SumStore
) -> None:
    """As a volume that is unmounted for a while."""
    store.add(KEY, ONE)
    store.flush()
    away = path.parent.with_name("away")
    path.parent.rename(away)
    until(lambda: store.problem)
    store.add(KEY, ONE)
    assert store.read("")[KEY]["requests"] == 2
    assert any("cannot be read or written" in each for each in store.warnings())
    away.rename(path.parent)
    until(lambda: store.problem is None)
    until(lambda: requests(path) == 2)


def test_what_is_switched_off_and_secret_survives_a_removal(path: Path, store: SumStore) -> None:
    secret, off = store.secret("holdout"), SwitchedOff("demo", "confidence", 1.0, "why")
    store.switch_off(off)
    store.flush()
    removed(path)
    until(followed(store))
    assert store.switched_off() == [off]
    assert store.secret("holdout") == secret
    store.close()
    again = SumStore(path)
    assert again.switched_off() == [off]
    assert again.secret("holdout") == secret
    again.close()


def test_the_secret_of_another_file_is_taken_over(path: Path, store: SumStore) -> None:
    """So that servers that share it deal alike."""
    before = store.secret("holdout")
    other = SumStore(path.with_suffix(".new"))
    theirs = other.secret("holdout")
    other.close()
    path.with_suffix(".new").rename(path)
    until(lambda: store.secret("holdout") != before)
    assert store.secret("holdout") == theirs


def test_reopening_ends_the_complaint(path: Path, store: SumStore) -> None:
    removed(path)
    until(followed(store))
    store.reopen()
    assert store.warnings() == []


def test_no_descriptor_is_left_of_files_that_were_followed(path: Path, store: SumStore) -> None:
    def followed_times(count: int) -> None:
        for _ in range(count):
            store.reopen()
            shutil.move(path, path.with_suffix(".old"))
            until(followed(store))

    followed_times(2)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    followed_times(5)
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
