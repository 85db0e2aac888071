"""Help texts of both command lines: each option, argument and subcommand has a whole sentence."""

import argparse
import re
from collections.abc import Callable, Iterator

import pytest

from service.config.access import ACCESS, add_access_flags
from service.config.server import OPTIONS, add_flags
from service.records.explain_command import explain_parser
from service.savings.command import guard_parser, savings_parser
from training.cli import build_parser

SENTENCE = re.compile(r"(?:[A-Z]|[`/$-]\S|\S*_)(?s:.*)[^\s.]\.")
"""A capital letter or a word of code at the beginning, one period at the end."""


def serving() -> argparse.ArgumentParser:
    """Ours of the server's flags; the others are vLLM's."""
    parser = argparse.ArgumentParser(prog="stepgrpo-serve")
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
    assert [name for name, text in FOUND if re.search(r"\bsee docs/", text or "")] == []


@pytest.mark.parametrize("text", ["", "folder", "Folder", "folder.", "of a run.", "Two..", " A b."])
def test_what_is_no_sentence_is_told_from_one(text: str) -> None:
    assert not SENTENCE.fullmatch(text)


def test_all_flags_of_the_server_are_looked_at() -> None:
    flags = {option.flag for option in (*OPTIONS.values(), *ACCESS.values())}
    assert flags | {"--exit-config"} == {
        name.split()[-1] for name, _ in FOUND if name.startswith("stepgrpo-serve --")
    }
