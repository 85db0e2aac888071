"""CONTRIBUTING.md: the files it names exist, and hold the names that it says they hold."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CODE = re.findall(r"`([^`]+)`", TEXT)
HELD = re.findall(r"`(\w+)`\s+(?:of|in)\s+`([\w./]+\.py)`", TEXT)


def test_the_files_it_names_exist() -> None:
    words = [word for code in CODE for word in code.split()]
    paths = [
        word for word in words if re.fullmatch(r"[\w.-]+(?:/[\w.-]*)+|[\w-]+\.(?:md|toml)", word)
    ]
    own = [
        path for path in paths if "NAME" not in path and not path.startswith((".venv", "methods"))
    ]
    assert len(own) > 25
    assert [path for path in own if not (ROOT / path).exists()] == []


def test_the_files_hold_the_names() -> None:
    assert {"POLICIES", "BY_POLICY", "REWARDS", "METHODS", "_ROWS", "ADDED"} <= {
        name for name, _ in HELD
    }
    for name, path in HELD:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^(?:class )?{name}\b", source, re.MULTILINE), f"{path}: {name}"


def test_it_is_one_page() -> None:
    assert len(TEXT.splitlines()) <= 80
