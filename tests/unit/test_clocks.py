"""F20: what decides reads a monotonic clock. Wall clocks jump."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WALL = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "strftime", "asctime"},
    "datetime": {"datetime", "date"},
}
ALLOWED = {
    ("service/records/log_line.py", "datetime.datetime"): "writes the moment of a line as a date",
    ("service/records/recent.py", "time.time"): "shows when a response ended",
    ("service/records/timeline.py", "time.time_ns"): "where a trace begins; the rest is counted "
    "from there by a monotonic clock",
    ("service/savings/command.py", "datetime.datetime"): "shows when a policy was switched off",
    (
        "service/savings/quality_gate.py",
        "time.time",
    ): "a probation outlives the process; a jump ends it "
    "early or late, which its pairs then judge again",
    (
        "training/run/lock.py",
        "datetime.datetime",
    ): "tells whom it refuses since when a folder is held",
    ("service/savings/report.py", "datetime.datetime"): "shows when a stratum began",
    (
        "service/savings/state/strata.py",
        "time.time",
    ): "the order of strata outlives the process; a jump changes it in the report, and no figure",
    ("training/evaluation/command.py", "datetime.datetime"): "the date of a report",
}


def uses(path: Path) -> set[str]:
    """Wall clocks that a file reads or imports by name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in WALL.get(node.value.id, ()):
                found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module in WALL:
            found |= {f"{node.module}.{each.name}" for each in node.names}
    return found


@pytest.mark.parametrize("package", ["stepgrpo_core", "stepgrpo_math", "service", "training"])
def test_f20_no_wall_clock_decides(package: str) -> None:
    paths = list((ROOT / package).rglob("*.py"))
    assert paths
    for path in paths:
        name = str(path.relative_to(ROOT))
        unexplained = {each for each in uses(path) if (name, each) not in ALLOWED}
        assert not unexplained, f"{name}: use time.monotonic, or explain it here"


def test_the_search_finds_what_it_is_for(tmp_path: Path) -> None:
    path = tmp_path / "late.py"
    path.write_text("import time\nfrom datetime import datetime\nlate = time.time() > 3\n")
    assert uses(path) == {"time.time", "datetime.datetime"}
