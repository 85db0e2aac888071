"""Writes files in full or not at all, so that a crash never leaves half a file under its name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing", "write_text"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a partial file that replaces `path` at the end, unless the block raises."""
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Replace the contents of `path` by `text`, in UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
