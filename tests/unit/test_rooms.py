"""Structure of the product: rooms, the order in which they may import each other, sizes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[2]
REGISTRIES = {"stepgrpo_core/policies", "stepgrpo_core/rewards"}
"""Folders with a file for every entry, which grow with what users add."""
FILES, LINES, FUNCTION, MEDIAN = 14, 400, 80, 10
ORDER = {
    "service": (
        "clients",
        "records",
        "params",
        "access",
        "load",
        "streams",
        "engine",
        "savings",
        "config",
        "http",
        "page",
        "process",
        "cli",
    ),
    "training": (
        "files",
        "data",
        "rollouts",
        "config",
        "grading",
        "run",
        "grpo",
        "sft",
        "evaluation",
        "viewing",
        "dry_run",
        "calibrate_command",
        "exits",
        "demo",
        "cli",
    ),
    "stepgrpo_core": (
        "errors",
        "names",
        "plugins",
        "docstrings",
        "fingerprint",
        "answers",
        "confidence",
        "segmenter",
        "sameness",
        "policies",
        "patterns",
        "rewards",
        "control",
        "families",
        "savings",
        "risk",
    ),
}
"""From the ground up: a room imports itself and the rooms before it."""
PACKAGES = [*ORDER, "stepgrpo_math"]
FOLDERS = sorted(
    {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}, key=str
)


def modules(package: str) -> Iterator[tuple[Path, str]]:
    """Every module of a package, with the room it is in."""
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        yield path, parts[0]


def imported(path: Path, package: str) -> Iterator[str]:
    """Rooms of `package` that a module imports from, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            yield from (each.name for each in node.names)


@pytest.mark.parametrize("package", ORDER)
def test_rooms_import_only_the_rooms_below_them(package: str) -> None:
    order = ORDER[package]
    back = [
        f"{path.relative_to(ROOT)} imports {room}"
        for path, here in modules(package)
        if here in order
        for room in imported(path, package)
        if room in order and order.index(room) > order.index(here)
    ]
    assert back == []


@pytest.mark.parametrize("package", ORDER)
def test_every_room_has_its_place_in_the_order(package: str) -> None:
    rooms = {room for _, room in modules(package)} - {"__init__"}
    assert rooms - {*ORDER[package], "bench"} == set()


@pytest.mark.parametrize("package", ORDER)
def test_the_documents_explain_every_import_between_rooms(package: str) -> None:
    order = ORDER[package]
    arrows = {
        (here, room)
        for path, here in modules(package)
        for room in imported(path, package)
        if {here, room} <= {*order} and room not in (here, "errors")
    }
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.partition(f"<!-- arrows: {package} -->")[2].partition("<!-- end of arrows -->")[0]
    explained = re.findall(r"^\| (\w+) \| (\w+) \| [^|]+ \|$", table, re.MULTILINE)[1:]
    assert sorted(explained) == sorted(arrows)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_can_be_taken_in_at_a_glance(folder: Path) -> None:
    if str(folder.relative_to(ROOT)) not in REGISTRIES:
        assert len(list(folder.glob("*.py"))) <= FILES


def test_files_and_functions_stay_short() -> None:
    long_files, long_functions, lengths = [], [], []
    for package in PACKAGES:
        for path, _ in modules(package):
            text = path.read_text()
            name = path.relative_to(ROOT)
            if len(text.splitlines()) > LINES:
                long_files.append(str(name))
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lengths.append((node.end_lineno or 0) - node.lineno + 1)
                    if lengths[-1] > FUNCTION:
                        long_functions.append(f"{name}:{node.name}")
    assert (long_files, long_functions) == ([], [])
    assert median(lengths) < MEDIAN
