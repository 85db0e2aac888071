"""Writes the request log from a thread of its own: whatever the disk does, no request waits for it.

Lines wait in memory, as many as fit the bounds; what does not fit or cannot be written is dropped
and counted, and the file is tried again with the next line. Each line is one append, so several
servers may share a file.
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

MAX_LINES = 4096  # that wait
MAX_CHARACTERS = 32 * 2**20  # of completions in them
CLOSE_SECONDS = 5.0

Line = Mapping[str, Any]


class RequestLog:
    """A file of JSON lines, opened at once and anew whenever its name means another file.

    Raises InvalidSetting for a file that cannot be opened.
    """

    def __init__(self, path: Path, *, max_lines: int = MAX_LINES) -> None:
        self._path = path
        self._max_lines = max_lines
        self._dropped: Callable[[int], None] = lambda _: None
        self._lines: deque[Line] = deque()
        self._characters = 0
        self._ready = threading.Condition()  # over the four around it
        self._closing = False
        self._anew = False
        self._failing = False
        self._torn = False  # the file ends within a line
        try:
            self._file, self._identity = _open(path)
        except OSError as error:
            remedy = f"{error.strerror}; name a file that can be written"
            raise InvalidSetting("log", str(path), remedy) from error
        self._thread = threading.Thread(target=self._work, name="request log", daemon=True)

    def start(self, dropped: Callable[[int], None]) -> None:
        """Begin to write; `dropped` is told, in any thread, how many lines were lost."""
        self._dropped = dropped
        self._thread.start()

    def write(self, line: Line) -> None:
        """Take a line to be written; returns at once, and never fails."""
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
        """Open the file anew before the next line, and at once: whoever sent a signal looks for
        it."""
        with self._ready:
            self._anew = True
            self._ready.notify()

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Write what waits, for at most `timeout` seconds."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            _log.warning("Request log: %d lines were not written to the end.", len(self._lines))
        else:
            os.close(self._file)

    def _work(self) -> None:
        while True:
            with self._ready:
                while not (self._lines or self._closing or self._anew):
                    self._ready.wait()
                anew, self._anew = self._anew, False
                line = self._lines.popleft() if self._lines else None
                if line is None and not anew:
                    return
                if line is not None:
                    self._characters -= len(line.get("text", ""))
            self._put(line, anew=anew)

    def _put(self, line: Line | None, *, anew: bool) -> None:
        """Write a line, or only look for the file."""
        try:
            self._follow(anew=anew)
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
                _log.info("Request log %s is written again.", self._path)
            self._failing = False

    def _follow(self, *, anew: bool) -> None:
        """Open the file anew when it was moved away, as by logrotate, or when asked to."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            found = None
        if anew or found is None or (found.st_dev, found.st_ino) != self._identity:
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
    """A descriptor, and what tells the file from others. A pipe that nobody reads is an error
    rather than a place to wait at."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
    file = os.open(path, flags, 0o640)
    os.set_blocking(file, True)
    found = os.fstat(file)
    return file, (found.st_dev, found.st_ino)
