"""Import graph: what each command loads, and that the extras declare what the packages import."""

import argparse
import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.cli import USAGE
from service.savings.state.store import SumStore, SwitchedOff
from training.cli import build_parser

ROOT = Path(__file__).parents[2]
HEAVY = {
    *("vllm", "torch", "transformers", "trl", "datasets", "peft", "accelerate", "numpy"),
    *("matplotlib", "fastapi", "sympy", "math_verify"),
}
"""Packages that take from tenths of a second to seconds to load."""
TRL = {"vllm", "datasets", "matplotlib", "fastapi", "math_verify"}
"""Those that a command may not load that checks settings against TRL's own types."""
PROGRAM = """\
import importlib, json, sys
module, *sys.argv[1:] = sys.argv[1:]
code = None
try:
    importlib.import_module(module).main()
except SystemExit as end:
    code = end.code
print("\\nLOADED", json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
LINE = {"id": "chatcmpl-1", "index": 0, "timeline": []}


def outcome(module: str, *arguments: str, at: Path) -> tuple[object, set[str]]:
    """Exit status or message of a command, and the top-level packages that it loaded."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, *arguments],
        capture_output=True,
        text=True,
        cwd=at,
        env=environment | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    code, loaded = json.loads(result.stdout.rpartition("\nLOADED ")[2])
    return code, set(loaded)


def training_commands() -> Iterator[tuple[str, ...]]:
    """Every subcommand of `stepgrpo-train`, as words; the first is none."""
    waiting: list[tuple[tuple[str, ...], argparse.ArgumentParser]] = [((), build_parser())]
    for words, parser in waiting:
        yield words
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += [((*words, name), each) for name, each in action.choices.items()]


SERVING = tuple(dict.fromkeys(re.findall(r"stepgrpo-serve ([a-z]+)", USAGE)))
TRAINING = tuple(training_commands())


def test_the_table_finds_the_subcommands() -> None:
    assert SERVING == ("savings", "guard", "explain", "bench")
    assert {("grpo",), ("eval",), ("demo", "results"), ("calibrate",)} <= set(TRAINING)


@pytest.mark.parametrize("command", [each for each in SERVING if each != "bench"])  # vLLM's own
def test_help_of_the_servers_subcommands_loads_nothing_heavy(command: str, tmp_path: Path) -> None:
    code, loaded = outcome("service.cli", command, "--help", at=tmp_path)
    assert code == 0
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("command", TRAINING, ids=" ".join)
def test_help_of_the_trainers_commands_loads_nothing_heavy(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    code, loaded = outcome("training.cli", *command, "--help", at=tmp_path)
    assert code == 0
    assert loaded & HEAVY == set()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("savings --state sums.sqlite", None),
        ("savings --state sums.sqlite --format csv", None),
        ("savings --url http://127.0.0.1:1", "refused"),
        ("guard --state sums.sqlite", None),
        ("guard --state sums.sqlite --switch-on demo confidence", None),
        ("guard --state sums.sqlite --switch-on demo budget", "budget"),
        ("explain chatcmpl-1 --log requests.jsonl --format json", None),
        ("explain chatcmpl-2 --log requests.jsonl", "chatcmpl-2"),
        ("explain chatcmpl-1", "--log"),
        ("./no-such-model --port 8000", "config.json"),
    ],
)
def test_subcommands_that_need_no_engine_load_none(
    command: str, said: str | None, tmp_path: Path
) -> None:
    store = SumStore(tmp_path / "sums.sqlite")
    store.switch_off(SwitchedOff("demo", "confidence", 0.0, "agreement"))
    store.close()
    (tmp_path / "requests.jsonl").write_text(json.dumps(LINE) + "\n")
    code, loaded = outcome("service.cli", *command.split(), at=tmp_path)
    assert said in str(code) if said else code is None
    assert loaded & HEAVY == set()


EVAL = "eval --model m --baseline m --output out"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("grpo --config nope", "neither a file nor a shipped preset"),
        ("grpo --config demo rollout.exit.treshold=0.9", "threshold"),
        ("sft --config demo seed=x", "a whole number"),
        (f"{EVAL} --tasks nope", "gsm8k"),
        (f"{EVAL} --tasks demo --policy nope", "none"),
        (f"{EVAL} --tasks math500 --data math500=gone.jsonl", "gone.jsonl"),
        ("calibrate --model m --output c.json", "--prompts and --demo"),
        ("calibrate --model m --output c.json --prompts gone.jsonl", "gone.jsonl"),
    ],
)
def test_a_command_that_cannot_run_says_so_before_it_loads_anything_heavy(
    command: str, said: str, tmp_path: Path
) -> None:
    code, loaded = outcome("training.cli", *command.split(), at=tmp_path)
    assert said in str(code)
    assert loaded & HEAVY == set()


def test_print_config_loads_trl_to_check_against_and_no_engine(tmp_path: Path) -> None:
    asked = "grpo --config demo --print-config"
    code, loaded = outcome("training.cli", *asked.split(), at=tmp_path)
    assert code is None
    assert loaded & TRL == set()


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BESIDES: dict[str, dict[str, tuple[str, ...]]] = {
    "service": {"vllm": ("cpu", "cuda")},  # which of them depends on the machine
    "training": {"vllm": ("cpu", "cuda"), "reasoning_gym": ("tasks",)},
}
"""Imports that extras of their own declare."""
EXTRAS = {"service": "serve", "training": "train"}
OURS = {"stepgrpo_core", "stepgrpo_math", "service", "training"}


def third_party(package: str) -> set[str]:
    """Top-level packages imported under `package`, at any depth of its code, that are no part of
    Python or of this project."""
    found: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                found |= {str(each.value) for each in node.args if isinstance(each, ast.Constant)}
    return found - set(sys.stdlib_module_names) - OURS


def declared(extra: str) -> set[str]:
    """Distributions that an extra names."""
    lines = PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def providers(name: str) -> set[str]:
    """Installed distributions that an importable package comes from."""
    found = importlib.metadata.packages_distributions().get(name, [name])
    return set(map(canonicalize_name, found))


@pytest.mark.parametrize("package", EXTRAS)
def test_an_extra_declares_every_package_that_its_code_imports(package: str) -> None:
    wanted = (third_party(package) | third_party("stepgrpo_math")) - BESIDES[package].keys()
    assert {"pebble", "sympy"} <= wanted  # a lazy import counts, too
    extra = declared(EXTRAS[package])
    assert {name for name in wanted if not extra & providers(name)} == set()


@pytest.mark.parametrize("package", EXTRAS)
def test_each_exception_is_imported_and_declared_by_the_extra_that_it_names(package: str) -> None:
    assert BESIDES[package].keys() <= third_party(package)
    for name, extras in BESIDES[package].items():
        offered = set().union(*map(declared, extras))
        assert offered & (providers(name) | {canonicalize_name(name)})
