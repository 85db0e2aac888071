"""`scripts/beside.sh`: two commands at the same time."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "beside.sh"


@pytest.mark.parametrize(
    ("first", "second", "status"), [(0, 0, 0), (3, 0, 3), (0, 4, 4), (1, 2, 2)]
)
def test_it_fails_if_one_fails_and_shows_the_first_ones_output_last(
    tmp_path: Path, first: int, second: int, status: int
) -> None:
    """The script leads a process group of its own here: it must not end its caller's."""
    caller = f"'{SCRIPT}' '{tmp_path / 'log'}' 'echo A; exit {first}' 'echo B; exit {second}'"
    found = subprocess.run(
        ["bash", "-c", f"{caller}; echo status $?"],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert found.returncode == 0
    *_, b, a, last = found.stdout.splitlines()
    assert (b, a, last) == ("B", "A", f"status {status}")
