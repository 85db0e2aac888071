"""Every symbol that the server finds by its name exists: vLLM's, and its own middleware."""

import ast
import importlib
from pathlib import Path

import pytest

from service.cli import MIDDLEWARE
from service.process.server import UPSTREAM

SERVICE = Path(__file__).parents[2] / "service"


def resolve(path: str) -> object:
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(path)


@pytest.mark.parametrize("path", MIDDLEWARE)
def test_middleware_is_found_by_its_name(path: str) -> None:
    assert isinstance(resolve(path), type)


@pytest.mark.parametrize("path", UPSTREAM)
def test_upstream_symbol_exists(path: str) -> None:
    try:
        resolve(path)
    except (AttributeError, ModuleNotFoundError) as gone:
        pytest.fail(f"vLLM no longer has {path} ({gone}); we need it because: {UPSTREAM[path]}")


def test_everything_imported_from_vllm_is_listed() -> None:
    for file in SERVICE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vllm"):
                for alias in node.names:
                    path = f"{node.module}.{alias.name}"
                    assert any(p == path or p.startswith(f"{path}.") for p in UPSTREAM), path


def test_only_one_file_touches_the_launch_internals() -> None:
    for file in SERVICE.glob("*.py"):
        if file.name != "server.py":
            assert "vllm.entrypoints" not in file.read_text(encoding="utf-8"), file
