"""Sums that survive restarts, shared by the server processes of a machine.

Requests add to sums in memory. A thread writes them every second in one transaction, and reads what
other processes have written; only that thread waits for the file (`file`), and whatever else asks
gets what memory knows. So a kill at any moment loses a second of sums at most and never half of
one, and processes add to the same rows instead of overwriting each other's. While the file cannot
be written (disk full, locked), the sums wait in memory, where they are as few as models, policies
and groups, whatever the traffic.

A file that is removed is made anew from what is known. One that is replaced counts from then on,
and gets what this process has written into the old one, as far as it is not in there: every writer
leaves a count of its writes.

Beside sums it keeps the newest values of some series, and which policies a guard has switched off.
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
"""For which a file that was replaced is complained of."""
REMEMBERED = 60
"""Writes that are known one by one, to tell which of them a copy of the file has."""
MAKES_ANEW = "move it away, and a new one is made, or put a copy of it there"
UNLOCK = "end the program that keeps it locked, or name another file"
RENAME = "name a file in a folder that can be written, or move this one away"
UNAVAILABLE = "Savings wait in memory: %s cannot be read or written: %s"
DAMAGED = f"Savings wait in memory, and figures are missing: %s is damaged: %s; {MAKES_ANEW}"
LONGEST_REASON = 200  # characters


class SumStore:
    """Sums by `Key`; without a `path` they are as old as the process.

    Raises InvalidSetting for a file that is no store of this version or cannot be written. One that
    only holds nonsense is complained of, and left alone.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.failures = 0
        """Times that the file could not be read or written."""
        self._added = Contents()  # not written yet
        self._writing = Contents()  # perhaps written already
        self._seen = Contents()  # in the file, as of the last look
        self._problem: str | None = None
        self._damaged = False
        self._replaced_at: float | None = None
        self._lock = threading.Lock()  # over these, and never held while the file is used
        self._file = StateFile(path)
        self._using = threading.RLock()  # over the file
        self._written = _Written()
        self._id = secrets.token_hex(8)
        self._stale = True  # memory is to be read from the file
        self._opened = False  # since memory was read from it
        self._watchers: list[Callable[[], None]] = []
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._begin()
        self._thread = threading.Thread(target=self._work, name="sums", daemon=True)
        self._thread.start()

    def _begin(self) -> None:
        try:
            self._file.follow(self._seen)
        except (sqlite3.Error, OSError) as error:
            locked = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            remedy = f"{error}; {UNLOCK if locked else RENAME}"
            raise InvalidSetting("--exit-state", str(self.path), remedy) from error
        self._opened = True
        self._try_flush()

    # In memory: for any thread, also an event loop's.

    def add(self, key: Key, sums: Sums) -> None:
        """Add to sums by their names; takes no time and never fails."""
        with self._lock:
            add_sums(self._added.sums, {key: sums})

    def append(self, key: RecentKey, *values: float) -> None:
        """Add to a series, of which the newest `KEPT` values are kept; never fails either."""
        self._add(Contents(recent={key: [*values]}))

    def add_stratum(self, number: int, stratum: Stratum) -> None:
        """Add a stratum, if it is not known."""
        self._add(Contents(strata={number: stratum}))

    def switch_off(self, which: SwitchedOff) -> bool:
        """Switch a policy off; whether it was on, as far as is known."""
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
        """Every sum whose series begins so, as far as is known: of this process up to now, of
        others up to a second ago. Nothing from a damaged file."""
        if self._damaged:
            return {}
        with self._lock:
            found = {k: v for k, v in self._seen.sums.items() if k.series.startswith(series)}
            for part in (self._writing, self._added):
                mine = {k: v for k, v in part.sums.items() if k.series.startswith(series)}
                add_sums(found, mine)
        return {**found}

    def recent(self, series: str) -> dict[RecentKey, list[float]]:
        """The newest values of the series that begin so, oldest first, as far as is known."""
        found = Contents()
        if not self._damaged:
            with self._lock:
                for part in self._parts:
                    mine = {k: v for k, v in part.recent.items() if k.series.startswith(series)}
                    found.add(Contents(recent=mine))
        return found.recent

    def switched_off(self) -> list[SwitchedOff]:
        """What guards have switched off, in any process, as far as is known."""
        with self._lock:
            found = {k: v for part in reversed(self._parts) for k, v in part.switched_off.items()}
        return sorted(found.values())

    def strata(self) -> dict[int, Stratum]:
        """The strata that are known, by number."""
        with self._lock:
            return {k: v for part in reversed(self._parts) for k, v in part.strata.items()}

    def secret(self, name: str) -> bytes:
        """A random secret of 32 bytes, made once and shared by all processes. The first call waits
        for the file."""
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
        """Why the file cannot be used now; None: it can."""
        return self._problem

    def warnings(self) -> list[str]:
        """What people should know who ask whether the server is well."""
        since = self._replaced_at
        recently = since is not None and time.monotonic() - since < NOTICE_SECONDS
        replaced = ["the state file was removed or replaced, and is followed"] if recently else []
        return [*filter(None, [self._problem]), *replaced]

    # With the file: not for an event loop.

    def add_watcher(self, watcher: Callable[[], None]) -> None:
        """Have it called in the store's thread, every second, after the file was looked at."""
        self._watchers.append(watcher)

    def reopen(self) -> None:
        """Look at the file at once, in the store's thread, and complain no longer that it was
        replaced; returns at once."""
        self._replaced_at = None
        self._wake.set()

    def flush(self) -> None:
        """Write what is pending, and see what others have written; raises sqlite3.Error or OSError,
        and nothing is lost then."""
        with self._using:
            self._look()
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
                self._look()

    def _look(self) -> None:
        found_anew = self._file.follow(self._seen)
        if found_anew:
            self._opened = self._stale = True
        if found_anew == "replaced":
            self._replaced_at = time.monotonic()
            _log.warning("State file %s was removed or replaced: it is followed.", self.path)
        found = self._file.load(anew=self._stale)
        if found is None:
            return
        with self._lock:
            before, self._seen = self._seen, found
            if self._opened:
                lacks = self._written.take_after(found.flushes.get(self._id, 0))
                self._added.add(Contents(lacks, secrets=before.secrets, strata=before.strata))
        self._opened = self._stale = False

    def _write(self, writing: Contents) -> None:
        """Write, and know it from then on."""
        writing.flushes = {self._id: self._written.count + 1} if writing else {}
        self._file.write(writing)
        # What is there once only may have been there before, and differ.
        self._stale = bool(writing.secrets or writing.strata or writing.switched_off)
        with self._lock:
            self._seen.add(writing)
            self._writing = Contents()
        if writing:
            self._written.note(writing.sums)

    def forget(self, key: RecentKey) -> None:
        """Drop a series of recent values of a model and policy; raises sqlite3.Error."""
        with self._using:
            self.flush()
            self._file.forget(key)
            self._stale = True
            self.flush()

    def switch_on(self, model: str, policy: str, fingerprint: str | None = None) -> bool:
        """Switch a policy on again, under settings of one fingerprint or, None, of all; whether it
        was off. Raises sqlite3.Error."""
        with self._using:
            self.flush()
            before = self.switched_off()
            self._file.switch_on(model, policy, fingerprint)
            self._stale = True
            self.flush()
            return before != self.switched_off()

    def close(self) -> None:
        """Write what is pending, as far as that works, and close the file."""
        self._ended.set()
        self._wake.set()
        self._thread.join()
        by = time.monotonic() + CLOSE_SECONDS
        while not self._try_flush() and not self._damaged and time.monotonic() < by:
            time.sleep(0.1)
        if self._added.sums:
            _log.error("State file %s: what could not be written to it is lost.", self.path)
        self._file.leave()

    def _work(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(EVERY_SECONDS)
            self._wake.clear()
            self._try_flush()
            for watcher in self._watchers:
                watcher()

    def _try_flush(self) -> bool:
        """Whether it worked; if not, it is said once."""
        try:
            self.flush()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            return False
        if self._problem is not None:
            _log.info("State file %s is written again.", self.path)
        self._problem, self._damaged = None, False
        return True

    def _fail(self, error: sqlite3.Error | OSError) -> None:
        why = " ".join(str(error).split())[:LONGEST_REASON]
        damaged = isinstance(error, sqlite3.Error) and is_damage(error)
        if self._problem is None or damaged != self._damaged:
            say = DAMAGED if damaged else UNAVAILABLE
            _log.error(say, self.path, why)
        if damaged:
            with self._using:
                self._file.leave()
        self.failures += 1
        self._damaged = damaged
        self._problem = (
            f"the state file is damaged ({why}): its figures are missing, and sums wait in memory; "
            f"{MAKES_ANEW}"
            if damaged
            else f"the state file cannot be read or written ({why}): sums wait in memory"
        )


class _Written:
    """Sums that this process has written in its life, by the number of the write."""

    def __init__(self) -> None:
        self.count = 0
        self._old: dict[Key, Sums] = {}  # of all writes before those that are known one by one
        self._new: deque[tuple[int, Mapping[Key, Sums]]] = deque()

    def note(self, sums: Mapping[Key, Sums]) -> None:
        """Enter the next write."""
        self.count += 1
        self._new.append((self.count, sums))
        if len(self._new) > REMEMBERED:
            add_sums(self._old, self._new.popleft()[1])

    def take_after(self, count: int) -> dict[Key, Sums]:
        """All after this write: they are to be written again. Zero is all; of what is older than
        is known one by one, a file that has any write is taken to have it."""
        taken: dict[Key, Sums] = {}
        if not count:
            taken, self._old = self._old, {}
        kept = deque(each for each in self._new if each[0] <= count)
        for _, sums in list(self._new)[len(kept) :]:
            add_sums(taken, sums)
        self._new = kept
        return taken
