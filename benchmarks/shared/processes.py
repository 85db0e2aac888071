"""Resource usage of a server's processes, read from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Used", "rss", "used"]

TICK = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Used:
    """Processor seconds of a server so far."""

    api: float
    """Seconds of the process that serves HTTP."""
    engine: float
    """Seconds of its descendants."""

    def since(self, before: "Used") -> "Used":
        """Return the usage since `before`."""
        return Used(self.api - before.api, self.engine - before.engine)


def used(server: int) -> Used:
    """Return the usage of the server whose API process has this id."""
    below = _descendants(server)
    return Used(_seconds(server), sum(map(_seconds, below)))


def rss(process: int) -> int:
    """Return bytes of resident memory."""
    return PAGE * int(Path(f"/proc/{process}/statm").read_text().split()[1])


def _descendants(process: int) -> list[int]:
    parents = {
        int(entry.name): int(fields[1])
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (fields := _fields(int(entry.name)))
    }
    found = [process]
    for each in found:  # the list grows during the loop
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def _seconds(process: int) -> float:
    fields = _fields(process)
    return TICK * (int(fields[11]) + int(fields[12])) if fields else 0.0


def _fields(process: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may hold anything; none if gone."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return []
    return stat.rpartition(")")[2].split()
