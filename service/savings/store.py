"""Sums that survive restarts: SQLite in WAL mode, shared by the server processes of a machine.

Requests add to sums in memory, which a thread writes every second in one transaction. So a kill at
any moment loses a second of sums at most and never half of one, and processes add to the same rows
instead of overwriting each other's. While the file cannot be written (disk full), the sums wait in
memory, where they are as few as models, policies and groups, whatever the traffic.
"""

import contextlib
import logging
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.fleet import Served

__all__ = ["Key", "Measure", "Side", "SumStore"]

_log = logging.getLogger("vllm.stepgrpo")

Side = Literal["exited", "held"]
Measure = Literal["completion", "engine"]

VERSION = 1
WAIT_SECONDS = 5.0  # for another process that writes
EVERY_SECONDS = 1.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS served (
    model TEXT, policy TEXT, side TEXT, measure TEXT, random_group INTEGER,
    requests INTEGER NOT NULL, tokens REAL NOT NULL, predicted REAL NOT NULL,
    predicted_squared REAL NOT NULL, predicted_tokens REAL NOT NULL,
    PRIMARY KEY (model, policy, side, measure, random_group)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
ADD = """
INSERT INTO served VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    requests = requests + excluded.requests,
    tokens = tokens + excluded.tokens,
    predicted = predicted + excluded.predicted,
    predicted_squared = predicted_squared + excluded.predicted_squared,
    predicted_tokens = predicted_tokens + excluded.predicted_tokens
"""


class Key(NamedTuple):
    """What a sum is of."""

    model: str
    policy: str
    side: Side
    measure: Measure
    """completion: what the client received; engine: all that was generated for it."""
    group: int
    """Random group of the conversation."""


class SumStore:
    """Sums by `Key`; without a `path` they are as old as the process.

    Raises InvalidSetting for a file that is no store of this version or cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.failures = 0
        """Writes that failed, and will be tried again."""
        self._pending: dict[Key, Served] = {}
        self._lock = threading.Lock()  # over `_pending`
        self._file = threading.Lock()  # over the connection
        self._ended = threading.Event()
        with self._refusals():
            self._connection = sqlite3.connect(
                path or ":memory:", timeout=WAIT_SECONDS, check_same_thread=False
            )
            self._prepare()
        self._thread = threading.Thread(target=self._write_on, name="sums", daemon=True)
        self._thread.start()

    def add(self, key: Key, served: Served) -> None:
        """Add to a sum; takes no time and never fails."""
        with self._lock:
            self._pending[key] = self._pending.get(key, Served()).plus(served)

    def flush(self) -> None:
        """Write what is pending; raises sqlite3.Error, and nothing is lost then."""
        with self._lock:
            taken, self._pending = self._pending, {}
        try:
            with self._file, self._connection:
                self._connection.executemany(ADD, [(*key, *each) for key, each in taken.items()])
        except sqlite3.Error:
            for key, served in taken.items():
                self.add(key, served)
            raise

    def read(self) -> dict[Key, Served]:
        """Every sum, of all processes, up to now; raises sqlite3.Error."""
        self.flush()
        with self._file:
            rows = self._connection.execute("SELECT * FROM served").fetchall()
        return {Key(*row[:5]): Served(*row[5:]) for row in rows}

    def secret(self, name: str) -> bytes:
        """A random secret of 32 bytes, made once and shared by all processes."""
        with self._file, self._connection:
            self._connection.execute(
                "INSERT INTO secrets VALUES (?, ?) ON CONFLICT DO NOTHING",
                (name, secrets.token_bytes(32)),
            )
            found = self._connection.execute("SELECT value FROM secrets WHERE name = ?", (name,))
            value: bytes = found.fetchone()[0]
        return value

    def close(self) -> None:
        """Write what is pending, as far as that works, and close the file."""
        self._ended.set()
        self._thread.join()
        self._try_flush()
        self._connection.close()

    def _prepare(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"version {version}, not {VERSION}")
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")  # whole after a power cut, too
        self._connection.executescript(SCHEMA)
        self._connection.execute(f"PRAGMA user_version = {VERSION}")

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            remedy = f"{error}; name a file in a folder that can be written, or move this one away"
            raise InvalidSetting("--exit-state", str(self.path), remedy) from error

    def _write_on(self) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            self._try_flush()

    def _try_flush(self) -> None:
        try:
            self.flush()
        except sqlite3.Error as error:
            if not self.failures:
                _log.warning("Savings wait in memory: %s cannot be written: %s", self.path, error)
            self.failures += 1
