"""File lock that allows one run at a time in a folder."""

import contextlib
import datetime
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

__all__ = ["FolderInUse", "locked"]

LOCK = "_stepgrpo.lock"


class FolderInUse(RuntimeError):
    """Another run is using the folder; the message names its process."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock `folder`, which is created if it is missing; raises FolderInUse.

    The kernel releases the lock when the process ends, even if it is killed. On a file system
    without locks this only prints a warning.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise FolderInUse(
                f"{folder} is in use by {holder}: wait until it ends, or use another output"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            print(f"{folder} is on a file system without locks: do not start a second run in it")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now}\n")
        file.flush()
        yield
