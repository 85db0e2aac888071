"""The state file: a SQLite database in WAL mode that may be moved or replaced while in use.

If a database is removed or replaced while it is open, its users keep writing to a file without a
name, and the old file's write-ahead log (WAL) remains beside the new file, where SQLite would
replay it into the new one. Therefore the names are compared with the open files before every use.
If they differ, the WAL is checkpointed into the file that it belongs to and removed, and the file
is opened again by name.

Every method may block on the file. Methods are called by one thread at a time, never by the event
loop's.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from service.savings.state.contents import KEPT, Contents, Damaged, RecentKey, read_contents
from service.savings.state.schema import (
    ADD,
    FORGET,
    JUDGE,
    JUDGE_ANY,
    NOTE,
    SCHEMA,
    check_schema,
    is_blank,
)

__all__ = ["StateFile", "is_damage"]

WAIT_SECONDS = 2.0  # for another process that writes

_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
}

Identity = tuple[int, int] | None


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the file itself is broken, so that retrying does not help."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF not in _TRANSIENT


class StateFile:
    """A state file by its name; None: an in-memory database. Opens at the first `ensure_open`."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._name = ""  # real path, without symbolic links; the WAL is beside it
        self._connection: sqlite3.Connection | None = None
        self._identities: list[Identity] = []
        self._checked: tuple[int, int] | None = None  # mtime and size at the integrity check
        self._version = -1  # SQLite's data_version at the last read

    def ensure_open(self, known: Contents) -> Literal["opened", "replaced"] | None:
        """Open the file if it is not open or if its name refers to another file; return which, or
        None. An empty file receives all of `known`. Raises sqlite3.Error or OSError."""
        if self._connection is not None and self._is_ours():
            return None
        before = self._identities[:1]
        moved = self._connection is not None
        self.close()
        self._name = os.path.realpath(self.path) if self.path else ":memory:"
        expected = _identity(self._name)
        connection = sqlite3.connect(
            self._name, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        expected = expected or _identity(self._name)
        try:
            self._prepare(connection, known)
            identities = self._found()
            if self.path is not None and (expected is None or identities[0] != expected):
                raise FileNotFoundError("it was moved while it was being opened")
        except (sqlite3.Error, OSError):
            connection.close()
            raise
        self._connection, self._identities, self._version = connection, identities, -1
        return "replaced" if moved or before not in ([], self._identities[:1]) else "opened"

    def _prepare(self, connection: sqlite3.Connection, known: Contents) -> None:
        check_schema(connection)  # first: it may be an unrelated database
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # consistent after a power loss
        with _transaction(connection):
            blank = is_blank(connection)
            for statement in SCHEMA:
                connection.execute(statement)
            if blank:
                _insert(connection, known)

    def _is_ours(self) -> bool:
        return self.path is None or self._found() == self._identities

    def _found(self) -> list[Identity]:
        name = os.path.realpath(self.path) if self.path else self._name
        return [_identity(name + suffix) for suffix in ("", "-wal", "-shm")]

    def close(self) -> None:
        """Close the file, and remove its WAL if another file now has its name."""
        connection, self._connection, self._checked = self._connection, None, None
        if connection is None:
            return
        moved = self.path is not None and _identity(self._name) != self._identities[0]
        if moved or _identity(self._name + "-wal") is None:  # otherwise it is another one's WAL
            with contextlib.suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if moved:
            self._remove_wal()
        with contextlib.suppress(sqlite3.Error):
            connection.close()

    def _remove_wal(self) -> None:
        for suffix, ours in zip(("-wal", "-shm"), self._identities[1:], strict=True):
            if ours is not None and _identity(self._name + suffix) == ours:
                with contextlib.suppress(OSError):
                    Path(self._name + suffix).unlink()

    def load(self, *, reload: bool) -> Contents | None:
        """Return all contents if another process changed them or if `reload` is set, otherwise
        None. Raises sqlite3.Error, or Damaged for invalid contents."""
        connection = self._open
        self._check()
        with _transaction(connection, "BEGIN"):
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if version == self._version and not reload:
                return None
            check_schema(connection)
            found = read_contents(connection.execute)
        self._version = version
        return found

    def _check(self) -> None:
        """Run SQLite's integrity check if the file changed since the last one. A separate
        connection reads the pages from the disk."""
        if self.path is None:
            return
        found = os.stat(self._name)  # noqa: PTH116 - a string
        state = found.st_mtime_ns, found.st_size
        if state == self._checked:
            return
        with contextlib.closing(sqlite3.connect(self._name, timeout=WAIT_SECONDS)) as fresh:
            (result,) = fresh.execute("PRAGMA integrity_check(1)").fetchone()
        if result != "ok":
            raise Damaged(" ".join(str(result).split()))
        self._checked = state

    def write(self, added: Contents) -> None:
        """Add to the contents in one transaction; writing nothing tests whether the file is
        writable. Raises sqlite3.Error."""
        with _transaction(self._open):
            _insert(self._open, added)

    def forget(self, key: RecentKey) -> None:
        """Delete a series of recent values. Raises sqlite3.Error."""
        with _transaction(self._open):
            self._open.execute(FORGET, key._asdict() | {"kept": 0})

    def switch_on(self, model: str, policy: str, fingerprint: str | None) -> None:
        """Delete quality gate decisions under one fingerprint, or under all if None. Raises
        sqlite3.Error."""
        of = "WHERE model = ? AND policy = ?"
        with _transaction(self._open):
            if not fingerprint:
                self._open.execute(f"DELETE FROM switched_off {of}", (model, policy))  # noqa: S608
            self._open.execute(
                f"DELETE FROM verdicts {of} AND fingerprint = coalesce(?, fingerprint)",  # noqa: S608
                (model, policy, fingerprint),
            )

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("it is not open")
        return self._connection


def _identity(name: str) -> Identity:
    try:
        found = os.stat(name)  # noqa: PTH116 - a string
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _insert(connection: sqlite3.Connection, added: Contents) -> None:
    put = connection.executemany
    put(ADD, [(*key, *each) for key, named in added.sums.items() for each in named.items()])
    put(NOTE, [(*key, value) for key, values in added.recent.items() for value in values])
    put(FORGET, [key._asdict() | {"kept": KEPT} for key in added.recent])
    for each in added.switched_off.values():
        connection.execute(JUDGE if each.fingerprint else JUDGE_ANY, each._asdict())
    put("INSERT INTO secrets VALUES (?, ?) ON CONFLICT DO NOTHING", added.secrets.items())
    put(
        "INSERT INTO strata VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            (number, each.model, each.since, json.dumps(each.facts))
            for number, each in added.strata.items()
        ],
    )
    put("INSERT OR REPLACE INTO writers VALUES (?, ?)", added.flushes.items())
