"""The core is standard library only and sans-IO; every public name is listed."""

import ast
import importlib
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import stepgrpo_core

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "stepgrpo_core").rglob("*.py"))
FORBIDDEN = {"asyncio", "logging", "socket", "threading", "time", "datetime", "subprocess", "os"}
ROOMS = {
    "stepgrpo_core": set(),
    "stepgrpo_math": {"stepgrpo_core"},
    "service": {"stepgrpo_core", "stepgrpo_math"},
    "training": {"stepgrpo_core", "stepgrpo_math"},
}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_no_io_and_nothing_from_outside(path: Path) -> None:
    allowed = (set(sys.stdlib_module_names) - FORBIDDEN) | {"stepgrpo_core"}
    assert imports_of(path) <= allowed


@pytest.mark.parametrize("room", ROOMS)
def test_dependencies_between_rooms_point_one_way(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        assert imports_of(path) & set(ROOMS) <= ROOMS[room] | {room}, path


def modules() -> list[str]:
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in CORE
    ]


@pytest.mark.parametrize("name", modules())
def test_all_lists_the_public_names(name: str) -> None:
    module = importlib.import_module(name)
    own = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == name
    }
    public = getattr(module, "__all__", [])  # a room whose modules are imported by name has none
    assert own <= set(public)
    assert list(public) == sorted(set(public), key=public.index)
    assert all(hasattr(module, each) for each in public)


def test_what_the_core_offers_has_a_docstring() -> None:
    for name in stepgrpo_core.__all__:
        value = getattr(stepgrpo_core, name)
        assert not callable(value) or value.__doc__, name


def test_the_wheel_alone_loads_only_the_standard_library(tmp_path: Path) -> None:
    """From outside: install the wheel without extras into an empty environment and import it."""
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", ROOT, source], check=True)
    for path in CORE:  # the working tree's state, not the last commit's
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (source / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)]
    subprocess.run([*pip, *wheel], check=True)
    venv.create(tmp_path / "empty", with_pip=False)
    python = tmp_path / "empty" / "bin" / "python"
    site = next((tmp_path / "empty" / "lib").glob("python*/site-packages"))
    wheels = [str(each) for each in tmp_path.glob("stepgrpo-*.whl")]
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), *wheels], check=True)
    program = (
        "import sys; before = set(sys.modules); import stepgrpo_core as core\n"
        "print(core.__file__)\n"
        "print(core.count_steps('Wait, no. Wait.'))\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}
    result = subprocess.run(
        [python, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    where, steps, loaded = result.stdout.splitlines()
    assert where.startswith(str(site))
    assert steps == "3"
    assert set(loaded.split()) <= set(sys.stdlib_module_names) | {"stepgrpo_core"}
