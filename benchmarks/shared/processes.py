"""What the processes of a server have used, read from /proc."""

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
    """Of the process that speaks HTTP."""
    engine: float
    """Of its children, and theirs."""

    def since(self, before: "Used") -> "Used":
        """What was used in between."""
        return Used(self.api - before.api, self.engine - before.engine)


def used(server: int) -> Used:
    """Of the server whose API process has this id."""
    below = _descendants(server)
    return Used(_seconds(server), sum(map(_seconds, below)))


def rss(process: int) -> int:
    """Bytes of resident memory."""
    return PAGE * int(Path(f"/proc/{process}/statm").read_text().split()[1])


def _descendants(process: int) -> list[int]:
    parents = {
        int(entry.name): int(fields[1])
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (fields := _fields(int(entry.name)))
    }
    found = [process]
    for each in found:  # grows while it is walked
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def _seconds(process: int) -> float:
    fields = _fields(process)
    return TICK * (int(fields[11]) + int(fields[12])) if fields else 0.0


def _fields(process: int) -> list[str]:
    """Of /proc/PID/stat after the name, which may hold anything; none once it is gone."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return []
    return stat.rpartition(")")[2].split()
