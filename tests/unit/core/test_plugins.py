"""Objects of the user's own modules are found by name, or refused with the reason."""

from pathlib import Path

import pytest

from stepgrpo_core import POLICIES, InvalidSetting, build_reward, load_policies
from stepgrpo_core.plugins import is_own, load_object, takes

MODULE = """
from dataclasses import dataclass

def score(text, gold, strict=False):
    return text == gold

class Policy:
    def __init__(self, settings):
        pass

@dataclass(frozen=True)
class Reward:
    source = "here"
    not_from_paper = ()

    def __call__(self, groups):
        return []

@dataclass(frozen=True)
class Uncallable:
    source = "here"
    not_from_paper = ()

class Marks:
    def score(self, text, gold):
        return True

marks = Marks()
number = 1
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


def test_an_entry_point_is_found_by_its_name_in_its_group(
    here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "marks-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: marks\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(f"[stepgrpo.graders]\nmarks = {here}:score\n")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert is_own("marks", "graders")
    assert not is_own("marks", "tasks")
    assert load("marks") is load(f"{here}:score")


def test_policies_are_loaded_once_and_unknown_names_are_left_to_the_check(
    here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{here}:Policy"
    monkeypatch.delitem(POLICIES, name, raising=False)
    load_policies(f"confidence+{name}+unknown")
    loaded = POLICIES[name]
    load_policies(name)
    assert POLICIES.pop(name) is loaded
    assert "unknown" not in POLICIES
    with pytest.raises(InvalidSetting, match=r"policy=.*name a class"):
        load_policies(f"{here}:number")


def test_a_reward_must_be_a_described_dataclass_that_can_be_called(here: str) -> None:
    assert build_reward(f"{here}:Reward")([]) == []
    for name in ("Uncallable", "Policy", "score"):
        with pytest.raises(InvalidSetting, match="name a dataclass with source"):
            build_reward(f"{here}:{name}")
