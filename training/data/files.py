"""Readers of rows from files: JSON lines, JSON and CSV, each optionally gzipped, and Parquet."""

import codecs
import csv
import gzip
import json
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

__all__ = ["FILE_SUFFIXES", "BadRow", "Numbered", "SourceUnavailable", "load_dataset", "read_file"]

Numbered = Iterator[tuple[int, object]]
"""Rows with their numbers from 1: lines of a JSONL file, otherwise rows."""


class BadRow(ValueError):
    """A row is not a problem with an answer; the message is ``source:number: reason``."""

    def __init__(self, source: str, number: int, reason: str) -> None:
        super().__init__(f"{source}:{number}: {reason}")
        self.source = source
        self.number = number
        self.reason = reason


class SourceUnavailable(OSError):
    """A source cannot be opened; the message names the remedy."""


def read_file(path: Path) -> Numbered:
    """Yield every row of a file whose name ends in one of `FILE_SUFFIXES`.

    Raises BadRow, SourceUnavailable, and errors of the file system.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    return _read_text(path)


def _read_text(path: Path) -> Numbered:
    zipped = path.suffix == ".gz"
    read = READERS[path.with_suffix("").suffix if zipped else path.suffix]
    with gzip.open(path) if zipped else path.open("rb") as file:
        try:
            yield from read(str(path), file)
        except (gzip.BadGzipFile, EOFError) as error:
            raise SourceUnavailable(f"{path} cannot be unzipped ({error})") from error


def _read_jsonl(name: str, file: BufferedIOBase) -> Numbered:
    for number, line in enumerate(file, start=1):  # binary lines end only at \n, not at U+2028
        if line.strip():
            try:
                yield number, json.loads(line.decode())
            except ValueError as error:
                raise BadRow(name, number, f"no JSON: {error}") from error


def _read_json(name: str, file: BufferedIOBase) -> Numbered:
    try:
        rows = json.loads(file.read().decode())
    except ValueError as error:
        raise SourceUnavailable(f"{name} is no JSON: {error}") from error
    if not isinstance(rows, list):
        raise SourceUnavailable(f"{name} holds no list of rows; write one, or JSON lines")
    yield from enumerate(rows, start=1)


def _read_csv(name: str, file: BufferedIOBase) -> Numbered:
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:  # CSV files from Excel begin with a BOM
        file.seek(0)
    rows = csv.DictReader((line.decode() for line in file), strict=True)
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            if None in row:
                raise BadRow(name, number, "more fields than columns; quote fields with commas")
            yield number, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadRow(name, number + 1, f"no CSV: {error}") from error


def _read_parquet(path: Path) -> Numbered:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    remedy = "check that it is a Parquet file"
    return load_dataset(str(path), remedy, "parquet", data_files=str(path), split="train")


def load_dataset(shown: str, remedy: str, *args: str, **options: Any) -> Numbered:
    """Yield the rows of a data set that the package datasets loads; raises SourceUnavailable."""
    import datasets  # noqa: PLC0415 - seconds to load

    try:
        rows = datasets.load_dataset(*args, **options)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise SourceUnavailable(f"{shown} cannot be loaded ({error}); {remedy}") from error
    yield from enumerate(rows, start=1)


READERS: dict[str, Callable[[str, BufferedIOBase], Numbered]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
}
FILE_SUFFIXES = (*READERS, *(f"{suffix}.gz" for suffix in READERS), ".parquet")
