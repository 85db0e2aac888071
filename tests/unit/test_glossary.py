"""The glossary's replaced words do not return in names of the product's code, flags and metrics."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.records.metric_table import METRICS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]*)\|$", PAGE, re.MULTILINE)
BANNED = sorted({word for *_, replaced in ROWS for word in re.findall(r"`(\w+)`", replaced)})
EXCEPTIONS = {
    "alike": {"alike", "_ALIKE"},
    "contender": {"Contender", "_contender", "contender"},
    "contenders": {"_contenders", "contenders", "contenders_of"},
    "deals": {"_deals"},
    "guard": {"Guard", "_check_guard", "_guard", "guard", "guard_command", "guard_parser"},
    "hasty": {"HASTY", "HASTY_RECHECK", "_hasty", "hasty", "hasty_learning_rate", "hasty_steps"},
    "seat": {"SEAT_SECONDS", "_seat", "seat"},
    "seats": {"Seats", "_seats", "seats"},
    "thinker": {"thinker"},
    "trial": {"Trial", "_trial", "trial", "trial_end"},
    "trials": {"--trials", "TRIALS", "trials"},
    "wish": {"WISH", "wish"},
    "wishes": {"wishes"},
}
"""By word, names that may hold it: public ones, and those of before the glossary. Add none."""
WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


def names() -> Iterator[tuple[str, str]]:
    """Every name that the product gives, with where: modules, classes, functions, parameters,
    fields, variables, flags and metrics."""
    yield from (("metrics", metric) for metric in METRICS)
    for package in ("stepgrpo_core", "stepgrpo_math", "service", "training"):
        for path in (ROOT / package).rglob("*.py"):
            where = str(path.relative_to(ROOT))
            yield where, path.stem
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                yield from ((where, name) for name in given(node))


def given(node: ast.AST) -> Iterator[str]:
    """Names that a node of the syntax tree gives."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.arg():
            yield node.arg
        case ast.Name(ctx=ast.Store()):
            yield node.id
        case ast.Attribute(ctx=ast.Store()):
            yield node.attr
        case ast.Constant(value=str(text)) if re.fullmatch(r"--[a-z][a-z-]+", text):
            yield text


NAMES = [(where, name, [each.lower() for each in WORD.findall(name)]) for where, name in names()]


def test_the_names_are_found() -> None:
    found = {name for _, name, _ in NAMES}
    assert {"stepgrpo_probe_tokens_total", "ExitController", "controller", "--switch-on"} <= found


@pytest.mark.parametrize("word", BANNED)
def test_replaced_words_do_not_return(word: str) -> None:
    allowed = EXCEPTIONS.get(word, set())
    held = {(where, name) for where, name, words in NAMES if word in words and name not in allowed}
    assert held == set()


def test_each_term_is_defined_once_and_is_no_replaced_word() -> None:
    terms = [term for row in ROWS for term in re.split(r", ", row[0]) if row[0] not in ("term",)]
    assert len(terms) > 40
    assert len(terms) == len(set(terms))
    assert not {*BANNED} & {*terms}
