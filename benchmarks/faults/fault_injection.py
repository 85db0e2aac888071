"""Faults of a machine: a clock that jumps, a disk that fills, a read-only root.

The clock is the one that Python reads (`time.time`, `time.time_ns`) in the server and its engine:
a `sitecustomize` shifts it, since a test must not set the machine's clock. The full disk of
`full_disk` is a limit on file size: every write beyond it fails, also to the log. The disk of
`Walls` is a real one.
"""

import contextlib
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from training.files import write_text

__all__ = ["Clock", "Walls", "full_disk"]

SHIFTED = '''\
"""Shifts the clock by the seconds that a file holds."""

import os
import time


def _shift():
    try:
        with open(os.environ["SHIFTED_CLOCK"]) as file:
            return int(file.read())
    except OSError:
        return 0


_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _shift()
time.time_ns = lambda: _time_ns() + _shift() * 10**9
'''


class Clock:
    """The wall clock of processes that start with `environment`."""

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(SHIFTED, encoding="utf-8")
        self._file = folder / "shift"
        self.environment = {
            "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
            "SHIFTED_CLOCK": str(self._file),
        }
        self.shift(0)

    def shift(self, seconds: int) -> None:
        """Set the clock to so many seconds ahead of the machine's."""
        write_text(self._file, str(seconds))


@contextlib.contextmanager
def full_disk(process: int, file: Path) -> Iterator[None]:
    """Limit the file size of the process to the current size of `file` within the context."""
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (file.stat().st_size, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process, resource.RLIMIT_FSIZE, before)


class Walls:
    """A read-only root, a small disk at `disk`, and few file descriptors."""

    def __init__(self, disk: Path, *, mebibytes: int, descriptors: int) -> None:
        self.disk = disk
        disk.mkdir(exist_ok=True)
        inside = (
            f"mount --make-rprivate / && mount -t tmpfs -o size={mebibytes}m tmpfs {disk} "
            '&& mount -o remount,bind,ro / && exec "$@"'
        )
        as_root = () if os.geteuid() == 0 else ("--map-root-user",)
        self.command = (
            *(_path("unshare"), "--mount", *as_root, "--", "/bin/sh", "-c", inside, "walls"),
            *(_path("prlimit"), f"--nofile={descriptors}:{descriptors}", "--"),
        )
        self.environment = {"TMPDIR": str(disk), "HOME": str(disk)}

    def seen_from_outside(self, process: int) -> Path:
        """Return the path of the process's disk as seen from outside its mount namespace."""
        return Path(f"/proc/{process}/root") / self.disk.relative_to("/")


def _path(command: str) -> str:
    found = shutil.which(command)
    assert found, f"{command} is needed; Debian has it in util-linux"
    return found
