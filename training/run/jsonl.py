"""Crash-safe JSONL files for results.

The first line contains the settings of the file; every other line is one result. Appended lines are
on the disk when `append` returns. A last line without a line end was being written when the process
died; it is dropped when the file is opened again.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["append", "check_settings", "damaged", "open_jsonl", "read_jsonl"]


def open_jsonl(path: Path, head: Mapping[str, Any]) -> None:
    """Prepare `path` for appending: drop an incomplete last line; start a new file with `head`."""
    found = path.read_bytes() if path.exists() else b""
    whole = found[: found.rfind(b"\n") + 1]
    if whole != found:
        os.truncate(path, len(whole))
        print(f"{path}: dropped an incomplete last line", flush=True)
    if not whole:
        append(path, [head])


def append(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Append lines; they are on the disk when this returns."""
    lines = "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in entries)
    with path.open("ab") as file:
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield every complete line with its number from 1; the first is the head.

    Raises ValueError with file and line for a damaged line. A missing file has no lines.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise damaged(path, number, error) from error
        yield number, entry


def damaged(path: Path, number: int, error: Exception) -> ValueError:
    """Return the error for a line that cannot be parsed."""
    remedy = "delete the line" if number > 1 else "delete the file"
    return ValueError(f"{path}:{number}: {error!r}; {remedy}")


def check_settings(
    path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], made: str
) -> None:
    """Raise ValueError if a setting differs, with its name and both values."""
    for name, before, now in _differences(found, wanted):
        raise ValueError(
            f"{path} was {made} with {name}={before!r}, not {now!r}; set it back, delete the "
            "file, or use another output"
        )


def _differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted names of settings that differ, with the values in `found` and `wanted`."""
    for name, value in wanted.items():
        before = found.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            yield from _differences(before, value, f"{above}{name}.")
        elif before != value:
            yield f"{above}{name}", before, value
