"""Writes the request log in a background thread, so that a slow disk never delays a request.

Lines wait in a bounded queue. Lines that exceed the bounds or cannot be written are dropped and
counted; the next line tries the file again. Each line is a single append, so several servers can
share a file.

This is not `logging.handlers`: QueueHandler does not bound characters, QueueListener cannot stop
with a timeout, and WatchedFileHandler neither counts lost lines, repairs a half-written line, nor
refuses a pipe without a reader.
"""

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stepgrpo_core import InvalidSetting

__all__ = ["RequestLog"]

_log = logging.getLogger("vllm.stepgrpo")

MAX_LINES = 4096  # in the queue
MAX_CHARACTERS = 32 * 2**20  # of completions in the queue
CLOSE_SECONDS = 5.0

Line = Mapping[str, Any]


class RequestLog:
    """A file of JSON lines. It is reopened when it was renamed, removed or replaced. Raises
    InvalidSetting if it cannot be opened."""

    def __init__(self, path: Path, *, max_lines: int = MAX_LINES) -> None:
        self._path = path
        self._max_lines = max_lines
        self._dropped: Callable[[int], None] = lambda _: None
        self._lines: deque[Line] = deque()
        self._characters = 0
        self._ready = threading.Condition()  # guards the queue and the flags around it
        self._closing = False
        self._reopening = False
        self._failing = False
        self._torn = False  # the file ends in a half-written line
        try:
            self._file, self._identity = _open(path)
        except OSError as error:
            remedy = f"{error.strerror}; name a file that can be written"
            raise InvalidSetting("log", str(path), remedy) from error
        self._thread = threading.Thread(target=self._work, name="request log", daemon=True)

    def start(self, dropped: Callable[[int], None]) -> None:
        """Start the writer thread; `dropped` is called from any thread with the number of lost
        lines."""
        self._dropped = dropped
        self._thread.start()

    def write(self, line: Line) -> None:
        """Queue a line. Non-blocking; never raises."""
        size = len(line.get("text", ""))
        with self._ready:
            fits = len(self._lines) < self._max_lines
            fits = fits and (not size or self._characters + size <= MAX_CHARACTERS)
            if fits:
                self._lines.append(line)
                self._characters += size
                self._ready.notify()
        if not fits:
            self._dropped(1)

    def reopen(self) -> None:
        """Reopen the file immediately; used as a signal handler's action."""
        with self._ready:
            self._reopening = True
            self._ready.notify()

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Write queued lines, waiting at most `timeout` seconds."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            _log.warning(
                "Request log: %d lines were not written before shutdown.", len(self._lines)
            )
        else:
            os.close(self._file)

    def _work(self) -> None:
        while True:
            with self._ready:
                while not (self._lines or self._closing or self._reopening):
                    self._ready.wait()
                reopen, self._reopening = self._reopening, False
                line = self._lines.popleft() if self._lines else None
                if line is None and not reopen:
                    return
                if line is not None:
                    self._characters -= len(line.get("text", ""))
            self._put(line, reopen=reopen)

    def _put(self, line: Line | None, *, reopen: bool) -> None:
        """Write a line, or only reopen the file."""
        try:
            self._reopen_if_moved(reopen=reopen)
            if line is not None:
                self._append(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        except (OSError, ValueError, TypeError) as error:
            self._dropped(line is not None)
            if not self._failing:
                reason = error.strerror if isinstance(error, OSError) else type(error).__name__
                _log.warning("Request log %s: %s; lines are dropped.", self._path, reason)
            self._failing = True
        else:
            if self._failing:
                _log.info("Request log %s is writable again.", self._path)
            self._failing = False

    def _reopen_if_moved(self, *, reopen: bool) -> None:
        """Reopen the file if it was moved, as logrotate does, or if `reopen` is set."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            found = None
        if reopen or found is None or (found.st_dev, found.st_ino) != self._identity:
            file, identity = _open(self._path)
            os.close(self._file)
            self._torn = self._torn and identity == self._identity
            self._file, self._identity = file, identity

    def _append(self, data: bytes) -> None:
        left = memoryview(b"\n" + data if self._torn else data)
        while left:
            left = left[os.write(self._file, left) :]
            self._torn = bool(left)


def _open(path: Path) -> tuple[int, tuple[int, int]]:
    """Return a descriptor and the file's identity. A pipe without a reader raises OSError instead
    of blocking."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
    file = os.open(path, flags, 0o640)
    os.set_blocking(file, True)
    found = os.fstat(file)
    return file, (found.st_dev, found.st_ino)
