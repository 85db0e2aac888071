"""Results in a JSONL file that a kill cannot spoil.

The first line says by which settings the file was made; every other line is one result. Lines are
appended some at a time, and are on the disk when `append` returns. A last line without its end
was being written when the process died: it is no result, and goes when the file is opened again.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["append", "check_settings", "damaged", "open_journal", "read_journal"]


def open_journal(path: Path, head: Mapping[str, Any]) -> None:
    """Make `path` ready for appending: a last line that was cut off goes, a new file gets `head`
    as its first line."""
    found = path.read_bytes() if path.exists() else b""
    whole = found[: found.rfind(b"\n") + 1]
    if whole != found:
        os.truncate(path, len(whole))
        print(f"{path}: dropped a last line that was cut off", flush=True)
    if not whole:
        append(path, [head])


def append(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Add lines; they are on the disk when this returns."""
    lines = "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in entries)
    with path.open("ab") as file:
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def read_journal(path: Path) -> Iterator[tuple[int, Any]]:
    """Every whole line with its number from 1; the first is the head.

    Raises ValueError for a line that is damaged, naming file and line. A file that does not exist
    has no lines.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise damaged(path, number, error) from error
        yield number, entry


def damaged(path: Path, number: int, error: Exception) -> ValueError:
    """The error for a line that cannot be read."""
    remedy = "delete the line" if number > 1 else "delete the file"
    return ValueError(f"{path}:{number}: {error!r}; {remedy}")


def check_settings(
    path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], made: str
) -> None:
    """Raises ValueError that names the first setting which differs, and both of its values."""
    for name, before, now in _differences(found, wanted):
        raise ValueError(
            f"{path} was {made} with {name}={before!r}, not {now!r}; set it back, delete the "
            "file, or use another output"
        )


def _differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Dotted names in `wanted` that `found` has another value for, with both values."""
    for name, value in wanted.items():
        before = found.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            yield from _differences(before, value, f"{above}{name}.")
        elif before != value:
            yield f"{above}{name}", before, value
