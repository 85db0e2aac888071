"""Objects of the user's own modules are found by name, or refused with the reason."""

from pathlib import Path

import pytest

from stepgrpo_core import InvalidSetting
from stepgrpo_core.plugins import load_object, takes

MODULE = """
def score(text, gold, strict=False):
    return text == gold

class Marks:
    def score(self, text, gold):
        return True

marks = Marks()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module in the current directory, which is not on the import path."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"{name}_broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [])
    return name


def load(name: str) -> object:
    return load_object(name, "grader", takes(2), "a function", "graders")


def test_a_module_of_the_current_directory_is_found(here: str) -> None:
    assert load(f"{here}:score")
    assert load(f"{here}:marks.score")  # as entry points are written


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("score", "write package.module:name"),
        (":score", "write package.module:name"),
        ("{}:", "write package.module:name"),
        ("nowhere.at_all:score", "ModuleNotFoundError: No module named 'nowhere'"),
        ("{}:scores", "has no attribute 'scores'"),
        ("{}_broken:score", "ZeroDivisionError: division by zero"),
        ("{}:MODULE.x y", "cannot be imported"),
        ("{}:Marks", "name a function"),
        ("{}:marks", "name a function"),
        ("{}:marks.score.__self__", "name a function"),
        ("builtins:len", "name a function"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(here: str, name: str, problem: str) -> None:
    with pytest.raises(InvalidSetting, match=problem) as error:
        load(name.format(here))
    assert (error.value.name, error.value.value) == ("grader", name.format(here))


def test_a_function_without_a_signature_is_taken_at_its_word() -> None:
    assert takes(2)(max)
