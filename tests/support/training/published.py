"""The published benchmark files, where this checkout has them beside it."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "benchmarks"


def published(name: str) -> str:
    """Path of a file; skips the test where the files are absent."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"the published benchmark file {name} is not beside this checkout")
    return str(path)
