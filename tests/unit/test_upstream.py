"""Every symbol that the server finds by its name exists: vLLM's, and its own middleware.

`make test-vllm VLLM=...` runs this with other versions of vLLM.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.cli import MIDDLEWARE
from service.process import upstream
from service.process.upstream import MOVED, UPSTREAM, located, places

SERVICE = Path(__file__).parents[2] / "service"
CALLS: dict[str, tuple[int, tuple[str, ...]]] = {
    "vllm.engine.arg_utils.AsyncEngineArgs.create_engine_config": (2, ()),
    "vllm.entrypoints.chat_utils.load_chat_template": (1, ()),
    "vllm.entrypoints.launchers.api_server.entry.build_and_serve": (4, ("http",)),
    "vllm.entrypoints.launchers.cli_args.make_arg_parser": (1, ()),
    "vllm.entrypoints.launchers.cli_args.validate_parsed_serve_args": (1, ()),
    "vllm.entrypoints.launchers.launcher.NoSignalServer": (1, ()),
    "vllm.entrypoints.launchers.launcher.setup_server": (1, ("reuse_port",)),
    "vllm.entrypoints.serve.utils.api_utils.cli_env_setup": (0, ()),
    "vllm.outputs.CompletionOutput": (
        0,
        ("index", "text", "token_ids", "cumulative_logprob", "logprobs"),
    ),
    "vllm.outputs.RequestOutput.add": (2, ("aggregate",)),
    "vllm.reasoning.ReasoningParser.extract_reasoning_streaming": (7, ()),
    "vllm.reasoning.ReasoningParser.is_reasoning_end": (2, ()),
    "vllm.tracing.init_tracer": (2, ()),
    "vllm.v1.engine.async_llm.AsyncLLM.from_vllm_config": (
        1,
        (
            *("usage_context", "enable_log_requests", "aggregate_engine_logging"),
            "disable_log_stats",
        ),
    ),
}
"""How the server calls vLLM: the number of positional arguments, `self` included, and the names."""


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


def imports(file: Path) -> Iterator[str]:
    """What a file imports from vLLM."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.startswith("vllm."))


@pytest.mark.parametrize("path", MIDDLEWARE)
def test_middleware_is_found_by_its_name(path: str) -> None:
    assert isinstance(resolve(path), type)


@pytest.mark.parametrize("path", UPSTREAM)
def test_upstream_symbol_exists(path: str) -> None:
    try:
        located(path) if path in MOVED else resolve(path)
    except (AttributeError, ImportError) as gone:
        pytest.fail(f"vLLM no longer has {path} ({gone}); we need it because: {UPSTREAM[path]}")


@pytest.mark.parametrize("path", CALLS)
def test_upstream_symbol_takes_what_the_server_passes(path: str) -> None:
    positional, names = CALLS[path]
    found: Any = located(path) if path in MOVED else resolve(path)
    inspect.signature(found).bind(*[None] * positional, **dict.fromkeys(names))


def test_a_moved_symbol_is_found_in_its_old_place_and_in_its_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = "vllm.none.of.them"
    monkeypatch.setitem(upstream.MOVED, old, ("9", "json.dumps"))
    assert located(old) is resolve("json.dumps")
    monkeypatch.setitem(upstream.MOVED, "json.dumps", ("9", old))
    assert located("json.dumps") is resolve("json.dumps")
    monkeypatch.setitem(upstream.MOVED, old, ("9", "json.none"))
    with pytest.raises(ImportError, match=r"has no vllm\.none\.of\.them; use one that docs/"):
        located(old)


def test_everything_imported_from_vllm_is_listed() -> None:
    for file in SERVICE.rglob("*.py"):
        for path in imports(file):
            assert any(p == path or p.startswith(f"{path}.") for p in UPSTREAM), (file, path)


def test_what_is_located_is_listed_and_each_move_is_used() -> None:
    used = {
        str(node.args[0].value)
        for node in ast.walk(ast.parse((SERVICE / "process" / "server.py").read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "located"
        if isinstance(node.args[0], ast.Constant)
    }
    assert used == set(MOVED)
    assert used <= set(UPSTREAM)
    assert all(len(places(path)) == 2 for path in used)


def test_only_one_file_touches_the_launch_internals() -> None:
    for file in SERVICE.rglob("*.py"):
        if file.name not in ("server.py", "upstream.py"):
            assert "vllm.entrypoints" not in file.read_text(encoding="utf-8"), file
