"""Help texts of both command lines and the reference: sentences, and defaults, of every option."""

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.docs import SECTIONS as TRAINING
from scripts.docs_server import SECTIONS as SERVING
from service.config.access import ACCESS, AccessSettings, add_access_flags
from service.config.layers import Option
from service.config.server import OPTIONS, add_flags
from service.records.explain_command import explain_parser
from service.savings.command import guard_parser, savings_parser
from stepgrpo_core.docstrings import field_docs
from training.cli import build_parser

SENTENCE = re.compile(r"(?:[A-Z]|[`/$-]\S|\S*_)(?s:.*)[^\s.]\.")
"""A capital letter or a word of code at the beginning, one period at the end."""
POINTER = re.compile(r"\bsee\b|\bdocs/|^As\b", re.IGNORECASE)
REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")
FIELDS = [
    (section, field.name)
    for section in (*SERVING, AccessSettings, *TRAINING.values())
    for field in dataclasses.fields(section)
]


def serving() -> argparse.ArgumentParser:
    """Ours of the server's flags; the others are vLLM's."""
    form = argparse.ArgumentDefaultsHelpFormatter  # as vLLM's parser has it
    parser = argparse.ArgumentParser(prog="stepgrpo-serve", formatter_class=form)
    add_flags(parser)
    add_access_flags(parser)
    return parser


PARSERS: tuple[Callable[[], argparse.ArgumentParser], ...] = (
    serving,
    savings_parser,
    guard_parser,
    lambda: explain_parser(None),
    lambda: explain_parser("requests.jsonl"),
    build_parser,
)


def texts(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str | None]]:
    """Name and help text of each option, argument and subcommand, those of subcommands too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action._choices_actions:
                yield f"{parser.prog} {each.dest}", each.help
            for within in action.choices.values():
                yield from texts(within)
        elif not isinstance(action, argparse._HelpAction):
            name = action.option_strings[0] if action.option_strings else action.dest
            yield f"{parser.prog} {name}", action.help


FOUND = [pair for make in PARSERS for pair in texts(make())]


@pytest.mark.parametrize(("name", "text"), FOUND)
def test_each_help_text_is_a_sentence(name: str, text: str | None) -> None:
    assert SENTENCE.fullmatch(text or ""), f"{name}: {text!r}"


def test_no_help_text_sends_the_reader_elsewhere_for_all_it_says() -> None:
    assert [name for name, text in FOUND if POINTER.search(text or "")] == []


@pytest.mark.parametrize("text", ["", "folder", "Folder", "folder.", "of a run.", "Two..", " A b."])
def test_what_is_no_sentence_is_told_from_one(text: str) -> None:
    assert not SENTENCE.fullmatch(text)


def test_all_flags_of_the_server_are_looked_at() -> None:
    flags = {option.flag for option in (*OPTIONS.values(), *ACCESS.values())}
    assert flags | {"--exit-config"} == {
        name.split()[-1] for name, _ in FOUND if name.startswith("stepgrpo-serve --")
    }


@pytest.mark.parametrize(("section", "name"), FIELDS)
def test_each_setting_has_a_sentence_of_its_own(section: type[Any], name: str) -> None:
    text = field_docs(section)[name]
    assert SENTENCE.fullmatch(text), text
    assert not POINTER.search(text)
    assert list(field_docs(section).values()).count(text) == 1


@pytest.mark.parametrize(
    "option", [*OPTIONS.values(), *ACCESS.values()], ids=lambda each: each.flag
)
def test_flag_and_reference_show_one_text_and_the_default(option: Option) -> None:
    texts = {name.split()[-1]: text for name, text in FOUND if name.startswith("stepgrpo-serve --")}
    default = repr(option.default)
    assert texts[option.flag] == f"{option.help} Default: {default}.".replace("%", "%%")
    row = f"| `{option.name}` | {option.help} | `{default}` |"
    assert row in REFERENCE


def test_help_shows_one_default() -> None:
    text = serving().format_help()
    assert "Default: 0.95." in text
    assert "(default:" not in text


def test_each_row_of_the_reference_that_has_a_default_column_fills_it() -> None:
    tables = re.findall(r"^\|[^\n]* default \|\n\|[-|]+\n((?:\|.*\n)+)", REFERENCE, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(rows) > len(FIELDS)
    assert [row for row in rows if re.search(r"\|\s*\|$", row)] == []
