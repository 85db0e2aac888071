"""Sums that survive restarts: SQLite in WAL mode, shared by the server processes of a machine.

Requests add to sums in memory, which a thread writes every second in one transaction. So a kill at
any moment loses a second of sums at most and never half of one, and processes add to the same rows
instead of overwriting each other's. While the file cannot be written (disk full), the sums wait in
memory, where they are as few as models, policies and groups, whatever the traffic.

Beside sums it keeps the newest values of some series, and which policies a guard has switched off.
"""

import contextlib
import logging
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stepgrpo_core.errors import InvalidSetting

__all__ = ["KEPT", "Key", "Recent", "SumStore", "Sums", "SwitchedOff"]

_log = logging.getLogger("vllm.stepgrpo")

VERSION = 2
WAIT_SECONDS = 5.0  # for another process that writes
EVERY_SECONDS = 1.0
KEPT = 500
"""The newest of a series of recent values that are kept, for every model and policy."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS sums (
    series TEXT, model TEXT, policy TEXT, random_group INTEGER, name TEXT, value REAL NOT NULL,
    PRIMARY KEY (series, model, policy, random_group, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recent (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    series TEXT NOT NULL, model TEXT NOT NULL, policy TEXT NOT NULL, value REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS recent_by_series ON recent (series, model, policy, id);
CREATE TABLE IF NOT EXISTS switched_off (
    model TEXT, policy TEXT, since REAL NOT NULL, why TEXT NOT NULL,
    PRIMARY KEY (model, policy)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
ADD = """
INSERT INTO sums VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value
"""
NOTE = "INSERT INTO recent (series, model, policy, value) VALUES (?, ?, ?, ?)"
FORGET = """
DELETE FROM recent WHERE series = :series AND model = :model AND policy = :policy AND id <= (
    SELECT id FROM recent WHERE series = :series AND model = :model AND policy = :policy
    ORDER BY id DESC LIMIT 1 OFFSET :kept
)
"""


class Key(NamedTuple):
    """What a sum is of."""

    series: str
    """What is counted, such as ``holdout/held/engine``."""
    model: str
    policy: str
    group: int
    """Random group of the conversation."""


class Recent(NamedTuple):
    """What a series of recent values is of."""

    series: str
    model: str
    policy: str


class SwitchedOff(NamedTuple):
    """A policy that a guard has switched off for a model."""

    model: str
    policy: str
    since: float
    """Seconds since the epoch: it outlives the process."""
    why: str


Sums = Mapping[str, float]


class SumStore:
    """Sums by `Key`; without a `path` they are as old as the process.

    Raises InvalidSetting for a file that is no store of this version or cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.failures = 0
        """Writes that failed, and will be tried again."""
        self._sums: dict[Key, dict[str, float]] = {}
        self._recent: dict[Recent, list[float]] = {}
        self._lock = threading.Lock()  # over these two
        self._file = threading.Lock()  # over the connection
        self._ended = threading.Event()
        with self._refusals():
            self._connection = sqlite3.connect(
                path or ":memory:", timeout=WAIT_SECONDS, check_same_thread=False
            )
            self._prepare()
        self._thread = threading.Thread(target=self._write_on, name="sums", daemon=True)
        self._thread.start()

    def add(self, key: Key, sums: Sums) -> None:
        """Add to sums by their names; takes no time and never fails."""
        with self._lock:
            pending = self._sums.setdefault(key, {})
            for name, value in sums.items():
                pending[name] = pending.get(name, 0) + value

    def note(self, key: Recent, *values: float) -> None:
        """Add to a series, of which the newest `KEPT` values are kept; never fails either."""
        with self._lock:
            self._recent[key] = [*self._recent.get(key, ()), *values][-KEPT:]

    def flush(self) -> None:
        """Write what is pending; raises sqlite3.Error, and nothing is lost then."""
        with self._lock:
            sums, self._sums = self._sums, {}
            recent, self._recent = self._recent, {}
        if not sums and not recent:
            return
        try:
            with self._file, self._connection as file:
                rows = [(*key, *each) for key, named in sums.items() for each in named.items()]
                file.executemany(ADD, rows)
                file.executemany(
                    NOTE, [(*key, v) for key, values in recent.items() for v in values]
                )
                file.executemany(FORGET, [key._asdict() | {"kept": KEPT} for key in recent])
        except sqlite3.Error:
            for each, named in sums.items():
                self.add(each, named)
            with self._lock:
                for key, values in recent.items():
                    self._recent[key] = [*values, *self._recent.get(key, ())][-KEPT:]
            raise

    def read(self, series: str) -> dict[Key, dict[str, float]]:
        """Every sum whose series begins so, of all processes, up to now, and of this one also what
        cannot be written; raises sqlite3.Error."""
        self._try_flush()
        found: dict[Key, dict[str, float]] = {}
        for *key, name, value in self._rows(
            "SELECT * FROM sums WHERE substr(series, 1, ?) = ?", len(series), series
        ):
            found.setdefault(Key(*key), {})[name] = value
        with self._lock:
            for waiting, named in self._sums.items():
                if waiting.series.startswith(series):
                    here = found.setdefault(waiting, {})
                    here |= {name: here.get(name, 0) + value for name, value in named.items()}
        return found

    def recent(self, series: str) -> dict[Recent, list[float]]:
        """The newest values of a series, oldest first, by model and policy; raises
        sqlite3.Error."""
        self.flush()
        found: dict[Recent, list[float]] = {}
        for model, policy, value in self._rows(
            "SELECT model, policy, value FROM recent WHERE series = ? ORDER BY id", series
        ):
            found.setdefault(Recent(series, model, policy), []).append(value)
        return found

    def forget(self, key: Recent) -> None:
        """Drop a series of recent values of a model and policy; raises sqlite3.Error."""
        self.flush()
        with self._file, self._connection as file:
            file.execute(FORGET, key._asdict() | {"kept": 0})

    def switched_off(self) -> list[SwitchedOff]:
        """What guards have switched off, in any process; raises sqlite3.Error."""
        return [SwitchedOff(*row) for row in self._rows("SELECT * FROM switched_off")]

    def switch_off(self, which: SwitchedOff) -> bool:
        """Switch a policy off; whether it was on. Raises sqlite3.Error."""
        with self._file, self._connection as file:
            statement = "INSERT INTO switched_off VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
            return bool(file.execute(statement, which).rowcount)

    def switch_on(self, model: str, policy: str) -> bool:
        """Switch a policy on again; whether it was off. Raises sqlite3.Error."""
        with self._file, self._connection as file:
            statement = "DELETE FROM switched_off WHERE model = ? AND policy = ?"
            return bool(file.execute(statement, (model, policy)).rowcount)

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._file:
            return self._connection.execute(statement, values).fetchall()

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
