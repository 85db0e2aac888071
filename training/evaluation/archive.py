"""Records without their texts, compressed: everything that the figures are computed from.

An archive is gzipped JSON lines. The first line holds `columns` and `made` (versions, hardware and
commit of the evaluation); every other line holds the values of one record in the columns' order.
"""

import dataclasses
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.evaluation.records import Record
from training.files import replacing

__all__ = ["read_archive", "write_archive"]

COLUMNS = [each.name for each in dataclasses.fields(Record) if each.default is dataclasses.MISSING]
"""Fields that every record has; the others hold texts, or tell the samples of a question apart."""


def write_archive(path: Path, records: Sequence[Record], made: Mapping[str, Any]) -> None:
    """Replace `path`; the same records give the same bytes."""
    head = {"columns": COLUMNS, "made": dict(made)}
    rows = ([getattr(each, name) for name in COLUMNS] for each in records)
    text = "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in (head, *rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_bytes(gzip.compress(text.encode(), mtime=0))


def read_archive(path: Path) -> list[Record]:
    """Return the records in the order of the file. Raises ValueError for a damaged file."""
    try:
        head, *rows = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
        return [Record(**dict(zip(head["columns"], row, strict=True))) for row in rows]
    except (ValueError, TypeError, KeyError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no archive of records: {error!r}") from error
