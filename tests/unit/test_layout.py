"""Layout of the tests: shared code has one place, and no test module serves as a library."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
MODULES = sorted(TESTS.rglob("*.py"))
IMPORTERS = sorted(
    path
    for folder in (
        "tests",
        "benchmarks",
        "scripts",
        "service",
        "training",
        "stepgrpo_core",
        "stepgrpo_math",
    )
    for path in (ROOT / folder).rglob("*.py")
)
SHARED_PLACES = 14


def imported(source: str) -> set[str]:
    """Dotted names of all modules that a module may import, at any depth of its code."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def is_test_module(name: str) -> bool:
    """Say if a dotted name leads through a test module or a conftest, also relatively."""
    return any(part.startswith("test_") or part == "conftest" for part in name.split("."))


def test_the_walk_sees_each_form_of_import() -> None:
    forms = (
        "from tests.unit.test_a import B",
        "from tests.unit import test_a",
        "import tests.unit.test_a as a",
        "def f():\n    from .test_a import B",
        "from tests.unit.conftest import B",
    )
    assert all(any(map(is_test_module, imported(form))) for form in forms)
    plain = "from tests.support.chat import test\nimport tests.support.models"
    assert [name for name in imported(plain) if is_test_module(name)] == []


def test_no_module_imports_a_test_module() -> None:
    names = {str(path.relative_to(TESTS.parent)): imported(path.read_text()) for path in IMPORTERS}
    found = {path: sorted(filter(is_test_module, each)) for path, each in names.items()}
    assert {path: each for path, each in found.items() if each} == {}


def test_only_support_holds_modules_that_are_no_tests() -> None:
    support = TESTS / "support"
    others = [
        path.relative_to(TESTS)
        for path in MODULES
        if support not in path.parents
        and not path.name.startswith("test_")
        and path.name not in {"__init__.py", "conftest.py"}
    ]
    assert others == []


def test_support_is_small_enough_to_look_through() -> None:
    places = [path for path in (TESTS / "support").iterdir() if not path.name.startswith("__")]
    assert len(places) <= SHARED_PLACES
