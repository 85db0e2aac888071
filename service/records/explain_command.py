"""`stepgrpo-serve explain ID --log FILE`: print the timeline of one request."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from service.records.explain import explain_line, printable
from service.records.log_line import MAX_ID

__all__ = ["explain_command", "explain_parser", "find_lines"]

VARIABLE = "STEPGRPO_EXIT_LOG"
HINTS = 3

DESCRIPTION = """\
Print what happened to one request, from the log of a server that was started with
--exit-log FILE: when it arrived, its first token, each probe (where in the reasoning it was
sent, when it was answered, and the decision), the exit, the forced tokens, the first token of
the answer, the end; and the estimated savings with their method. Times are seconds since arrival.

ID is the "id" of the response and of each chunk of its stream, such as chatcmpl-9f2c...
Each sequence has a section, with n > 1 or if clients used the id again.
"""
EPILOG = """\
examples:
  stepgrpo-serve explain chatcmpl-9f2c --log /var/log/stepgrpo/requests.jsonl
  stepgrpo-serve explain chatcmpl-9f2c --log requests.jsonl.1          # a rotated file
  stepgrpo-serve explain chatcmpl-9f2c --log requests.jsonl --format json | jq .seconds
"""


class Found(NamedTuple):
    """A matching line of a log."""

    number: int
    raw: str
    line: Mapping[str, Any]


def explain_command(arguments: list[str], environment: Mapping[str, str]) -> None:
    """Print the sections of a request; exit with a one-line message if there are none."""
    args = explain_parser(environment.get(VARIABLE)).parse_args(arguments)
    try:
        print(_output(args.id, args.log, args.format))
    except (OSError, ValueError) as error:
        sys.exit(f"stepgrpo-serve explain: {error}")


def explain_parser(log: str | None) -> argparse.ArgumentParser:
    """Return the parser of `explain`; `log` is the default file."""
    parser = argparse.ArgumentParser(
        prog="stepgrpo-serve explain",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("id", metavar="ID", help="Id in the response.")
    text = f"File of the server's --exit-log. Default: ${VARIABLE}."
    default = Path(log) if log else None
    parser.add_argument("--log", metavar="FILE", type=Path, default=default, help=text)
    form = "Readable text, or the JSON lines unchanged. Default: %(default)s."
    parser.add_argument("--format", choices=("text", "json"), default="text", help=form)
    return parser


def _output(name: str, path: Path | None, form: str) -> str:
    if path is None:
        raise ValueError(f"pass --log FILE, the file of the server's --exit-log, or set {VARIABLE}")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; --exit-log creates it")
    found, hints = find_lines(path, name)
    if not found:
        remedy = "it may be in a rotated file, still running, or have been refused"
        if hints:
            remedy = f"did you mean {' or '.join(map(printable, hints))}?"
        raise ValueError(f"{path} has no request {printable(name)}: {remedy}")
    if form == "json":
        return "\n".join(each.raw for each in found)
    return "\n\n\n".join(_section(path, each) for each in found)


def _section(path: Path, found: Found) -> str:
    try:
        return explain_line(found.line)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"{type(error).__name__} {printable(error)}"
        text = f"{path}, line {found.number}, is not a line of a request log ({problem})"
        raise ValueError(text) from error


def find_lines(path: Path, name: str) -> tuple[list[Found], list[str]]:
    """Return the lines of the sequences with this id and, if there are none, longer ids that end in
    it."""
    found: list[Found] = []
    hints: list[str] = []
    name = name[:MAX_ID]
    for each in _lines_with(path, name):
        if each.line["id"] == name:
            found.append(each)
        elif each.line["id"].endswith(f"-{name}") and len(hints) < HINTS:
            hints.append(each.line["id"])
    return found, list(dict.fromkeys(hints))


def _lines_with(path: Path, name: str) -> Iterator[Found]:
    """Yield lines that contain `name`; skip incomplete ones, which a full disk can leave."""
    quoted = json.dumps(name)[1:-1]
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, raw in enumerate(file, start=1):
            if quoted not in raw:
                continue
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict) and isinstance(line.get("id"), str):
                yield Found(number, raw.rstrip("\n"), line)
