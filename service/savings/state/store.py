"""Sums that survive restarts and are shared by the server processes of a machine.

Requests add to sums in memory. A background thread writes them every second in one transaction and
reads what other processes have written. Only that thread waits for the file (`file`); all other
callers read memory. A kill therefore loses at most one second of sums and never part of a write,
and processes add to the same rows instead of overwriting each other. While the file cannot be
written (disk full, locked), sums wait in memory; their number depends on models, policies and
groups, not on traffic.

If the file is removed, it is created again from memory. If it is replaced, the new file counts from
then on, and receives the sums that this process wrote to the old file, unless it contains them
already: every writer stores a count of its writes.

Besides sums, the file stores the newest values of some series, and the policies that the quality
gate has switched off.
"""

import logging
import secrets
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from service.savings.state.contents import (
    KEPT,
    Contents,
    Key,
    RecentKey,
    Stratum,
    Sums,
    SwitchedOff,
    add_sums,
)
from service.savings.state.file import StateFile, is_damage
from stepgrpo_core.errors import InvalidSetting

__all__ = ["KEPT", "Key", "RecentKey", "SumStore", "Sums", "SwitchedOff"]

_log = logging.getLogger("vllm.stepgrpo")

EVERY_SECONDS = 1.0
CLOSE_SECONDS = 5.0
NOTICE_SECONDS = 3600.0
"""Time for which a replaced file is reported as a warning."""
REMEMBERED = 60
"""Writes remembered individually, to tell which of them a copy of the file contains."""
RECREATE = "move it away to start a new one, or replace it by a copy"
UNLOCK = "end the program that locks it, or choose another file"
RENAME = "choose a file in a writable folder, or move this one away"
UNAVAILABLE = "Savings wait in memory: %s cannot be read or written: %s"
DAMAGED = f"Savings wait in memory, and estimates are missing: %s is damaged: %s; {RECREATE}"
LONGEST_REASON = 200  # characters


class SumStore:
    """Sums by `Key`; without a `path`, they live in memory only. Raises InvalidSetting for a file
    that is not a state file of this version or cannot be written. A damaged file causes a warning
    and is not modified."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.failures = 0
        """Number of failed reads and writes."""
        self._added = Contents()  # not written yet
        self._writing = Contents()  # write in progress
        self._seen = Contents()  # the file, as of the last read
        self._problem: str | None = None
        self._damaged = False
        self._replaced_at: float | None = None
        self._lock = threading.Lock()  # guards the attributes above; never held during file access
        self._file = StateFile(path)
        self._file_lock = threading.RLock()  # guards the file
        self._written = _WriteHistory()
        self._id = secrets.token_hex(8)
        self._stale = True  # the file must be read again
        self._opened = False  # the file was opened since it was last read
        self._watchers: list[Callable[[], None]] = []
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._open()
        self._thread = threading.Thread(target=self._run, name="sums", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        try:
            self._file.ensure_open(self._seen)
        except (sqlite3.Error, OSError) as error:
            locked = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            remedy = f"{error}; {UNLOCK if locked else RENAME}"
            raise InvalidSetting("--exit-state", str(self.path), remedy) from error
        self._opened = True
        self._try_flush()

    # Memory only: callable from any thread, including an event loop's

    def add(self, key: Key, sums: Sums) -> None:
        """Add to sums by their names. Non-blocking; never raises."""
        with self._lock:
            add_sums(self._added.sums, {key: sums})

    def append(self, key: RecentKey, *values: float) -> None:
        """Append to a series of recent values, of which the newest `KEPT` are kept. Non-blocking;
        never raises."""
        self._add(Contents(recent={key: [*values]}))

    def add_stratum(self, number: int, stratum: Stratum) -> None:
        """Add a stratum if it is unknown."""
        self._add(Contents(strata={number: stratum}))

    def switch_off(self, which: SwitchedOff) -> bool:
        """Switch a policy off; return whether it was on, as far as this process knows."""
        key = which.model, which.policy, which.fingerprint
        with self._lock:
            was_on = all(key not in each.switched_off for each in self._parts)
            if was_on:
                self._added.add(Contents(switched_off={key: which}))
        return was_on

    def _add(self, added: Contents) -> None:
        with self._lock:
            self._added.add(added)

    def read(self, series: str) -> dict[Key, Sums]:
        """Return every sum whose series has this prefix: current for this process, up to a second
        old for others. Empty for a damaged file."""
        if self._damaged:
            return {}
        with self._lock:
            found = {k: v for k, v in self._seen.sums.items() if k.series.startswith(series)}
            for part in (self._writing, self._added):
                mine = {k: v for k, v in part.sums.items() if k.series.startswith(series)}
                add_sums(found, mine)
        return {**found}

    def recent(self, series: str) -> dict[RecentKey, list[float]]:
        """Return recent values of the series with this prefix, oldest first, as far as this process
        knows."""
        found = Contents()
        if not self._damaged:
            with self._lock:
                for part in self._parts:
                    mine = {k: v for k, v in part.recent.items() if k.series.startswith(series)}
                    found.add(Contents(recent=mine))
        return found.recent

    def switched_off(self) -> list[SwitchedOff]:
        """Return the policies that any process has switched off, as far as this process knows."""
        with self._lock:
            found = {k: v for part in reversed(self._parts) for k, v in part.switched_off.items()}
        return sorted(found.values())

    def strata(self) -> dict[int, Stratum]:
        """Return the known strata by number."""
        with self._lock:
            return {k: v for part in reversed(self._parts) for k, v in part.strata.items()}

    def secret(self, name: str) -> bytes:
        """Return a random secret of 32 bytes, created once and shared by all processes. The first
        call waits for the file."""
        if self._secret(name) is None:
            self._add(Contents(secrets={name: secrets.token_bytes(32)}))
            self._try_flush()
        found = self._secret(name)
        assert found is not None
        return found

    def _secret(self, name: str) -> bytes | None:
        with self._lock:
            return next((p.secrets[name] for p in self._parts if name in p.secrets), None)

    @property
    def _parts(self) -> tuple[Contents, Contents, Contents]:
        return self._seen, self._writing, self._added

    @property
    def problem(self) -> str | None:
        """Reason why the file cannot be used now; None if it can."""
        return self._problem

    def warnings(self) -> list[str]:
        """Return warnings for the operator."""
        since = self._replaced_at
        recently = since is not None and time.monotonic() - since < NOTICE_SECONDS
        replaced = "the state file was removed or replaced; the new file is used"
        return [*filter(None, [self._problem]), *([replaced] if recently else [])]

    # The store's thread and the file: may block, except `add_watcher` and `reopen`

    def add_watcher(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` in the store's thread every second, after the file was read."""
        self._watchers.append(watcher)

    def reopen(self) -> None:
        """Read the file immediately in the store's thread, and clear the warning that it was
        replaced. Non-blocking."""
        self._replaced_at = None
        self._wake.set()

    def flush(self) -> None:
        """Write pending sums and read those of other processes. Raises sqlite3.Error or OSError;
        pending sums are kept then."""
        with self._file_lock:
            self._read()
            with self._lock:
                self._writing, self._added = self._added, Contents()
            try:
                self._write(self._writing)
            finally:
                with self._lock:
                    waiting, self._added = self._added, self._writing
                    self._writing = Contents()
                    self._added.add(waiting)
            if self._stale:
                self._read()

    def _read(self) -> None:
        opened = self._file.ensure_open(self._seen)
        if opened:
            self._opened = self._stale = True
        if opened == "replaced":
            self._replaced_at = time.monotonic()
            _log.warning("State file %s was removed or replaced; the new one is used.", self.path)
        found = self._file.load(reload=self._stale)
        if found is None:
            return
        with self._lock:
            before, self._seen = self._seen, found
            if self._opened:
                missing = self._written.take_after(found.flushes.get(self._id, 0))
                self._added.add(Contents(missing, secrets=before.secrets, strata=before.strata))
        self._opened = self._stale = False

    def _write(self, writing: Contents) -> None:
        """Write, then treat the data as read."""
        writing.flushes = {self._id: self._written.count + 1} if writing else {}
        self._file.write(writing)
        # Entries that exist only once may already have had another value in the file.
        self._stale = bool(writing.secrets or writing.strata or writing.switched_off)
        with self._lock:
            self._seen.add(writing)
            self._writing = Contents()
        if writing:
            self._written.note(writing.sums)

    def forget(self, key: RecentKey) -> None:
        """Delete a series of recent values of a model and policy. Raises sqlite3.Error."""
        with self._file_lock:
            self.flush()
            self._file.forget(key)
            self._stale = True
            self.flush()

    def switch_on(self, model: str, policy: str, fingerprint: str | None = None) -> bool:
        """Switch a policy on again, under one fingerprint or, if None, under all; return whether it
        was off. Raises sqlite3.Error."""
        with self._file_lock:
            self.flush()
            before = self.switched_off()
            self._file.switch_on(model, policy, fingerprint)
            self._stale = True
            self.flush()
            return before != self.switched_off()

    def close(self) -> None:
        """Write pending sums if possible, and close the file."""
        self._ended.set()
        self._wake.set()
        self._thread.join()
        by = time.monotonic() + CLOSE_SECONDS
        while not self._try_flush() and not self._damaged and time.monotonic() < by:
            time.sleep(0.1)
        if self._added.sums:
            _log.error("State file %s: pending sums could not be written and are lost.", self.path)
        self._file.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(EVERY_SECONDS)
            self._wake.clear()
            self._try_flush()
            for watcher in self._watchers:
                watcher()

    def _try_flush(self) -> bool:
        """Flush and return whether it worked; log a failure once."""
        try:
            self.flush()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            return False
        if self._problem is not None:
            _log.info("State file %s is writable again.", self.path)
        self._problem, self._damaged = None, False
        return True

    def _fail(self, error: sqlite3.Error | OSError) -> None:
        why = " ".join(str(error).split())[:LONGEST_REASON]
        damaged = isinstance(error, sqlite3.Error) and is_damage(error)
        if self._problem is None or damaged != self._damaged:
            message = DAMAGED if damaged else UNAVAILABLE
            _log.error(message, self.path, why)
        if damaged:
            with self._file_lock:
                self._file.close()
        self.failures += 1
        self._damaged = damaged
        self._problem = (
            f"the state file is damaged ({why}): estimates are missing, and sums wait in memory; "
            f"{RECREATE}"
            if damaged
            else f"the state file cannot be read or written ({why}): sums wait in memory"
        )


class _WriteHistory:
    """Sums that this process has written so far, by write number."""

    def __init__(self) -> None:
        self.count = 0
        self._old: dict[Key, Sums] = {}  # writes before those in _new
        self._new: deque[tuple[int, Mapping[Key, Sums]]] = deque()

    def note(self, sums: Mapping[Key, Sums]) -> None:
        """Record the next write."""
        self.count += 1
        self._new.append((self.count, sums))
        if len(self._new) > REMEMBERED:
            add_sums(self._old, self._new.popleft()[1])

    def take_after(self, count: int) -> dict[Key, Sums]:
        """Remove and return the sums of all writes after number `count`, to be written again. Zero
        returns all. A file with any write is assumed to contain the writes that are no longer
        remembered individually."""
        taken: dict[Key, Sums] = {}
        if not count:
            taken, self._old = self._old, {}
        kept = deque(each for each in self._new if each[0] <= count)
        for _, sums in list(self._new)[len(kept) :]:
            add_sums(taken, sums)
        self._new = kept
        return taken
