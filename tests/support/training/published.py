"""The published benchmark files, if they are next to this checkout."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "benchmarks"


def published(name: str) -> str:
    """Return the path of a file; skip the test if the files are absent."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"the published benchmark file {name} is not beside this checkout")
    return str(path)
