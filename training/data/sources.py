"""Sources of problems: the hub, files, the demo world, and generated tasks.

A row that cannot be used raises an error with its location and is never skipped: otherwise a wrong
column mapping could silently train on half of a data set.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

from tqdm import tqdm

from stepgrpo_core import InvalidSetting, last_box
from training.data.files import (
    FILE_SUFFIXES,
    BadRow,
    Numbered,
    SourceUnavailable,
    load_dataset,
    read_file,
)

__all__ = ["BadRow", "Row", "Source", "SourceUnavailable", "read_source"]

Kind = Literal["hub", "path", "demo", "reasoning_gym"]
PLUGINS = "stepgrpo.problems"
"""Group of entry points that generate problems: ``(seed, split, count) -> problems``."""

USED_BY: dict[str, tuple[Kind, ...]] = {
    "config": ("hub",),
    "revision": ("hub",),
    "split": ("hub",),
    "demo_split": ("demo",),
    "size": ("reasoning_gym",),
    "seed": ("demo", "reasoning_gym"),
}
"""Settings that only some kinds of source read; for other kinds they raise an error."""


@dataclass(frozen=True, slots=True)
class Row:
    """A problem: the user message, the gold answer, and their location."""

    prompt: str
    answer: str
    source: str
    number: int
    """Number from 1: the line of a JSONL file, otherwise the row."""
    columns: tuple[tuple[str, str], ...] = ()
    """Names and values of the requested columns besides problem and answer."""

    @property
    def place(self) -> str:
        """Return ``source:number``, as in error messages."""
        return f"{self.source}:{self.number}"


@dataclass(frozen=True, slots=True)
class Source:
    """A source of problems: exactly one of `hub`, `path`, `demo` and `reasoning_gym`.

    Raises InvalidSetting for none or several of them, and for settings that it does not read.
    """

    hub: str | None = None
    """Name of a data set on the Hugging Face hub, or a directory laid out as one."""
    path: str | None = None
    """A local file: .jsonl, .json (a list of rows) or .csv, each also with .gz, or .parquet."""
    demo: int | None = None
    """That many problems of the demo world."""
    reasoning_gym: str | None = None
    """Name of a task of the optional package reasoning-gym."""
    config: str | None = None
    """Configuration of a hub data set."""
    revision: str | None = None
    """Commit or tag of a hub data set; pin it, so that runs repeat."""
    split: str = "train"
    """Split of a hub data set; slices such as ``train[:1000]`` work."""
    demo_split: Literal["train", "validation", "test"] = "train"
    """Split of the demo world; no problem is in two."""
    size: int = 500
    """Entries to generate with reasoning-gym."""
    seed: int = 0
    """Of the demo world and reasoning-gym."""
    prompt: str | tuple[str, ...] = "prompt"
    """Column of the problem: text, or chat messages of which the last user message counts. Dots
    lead into nested columns. Several columns are joined by blank lines; an empty one is skipped."""
    answer: str = "answer"
    """Column of the gold answer, text or number; ``reward_model.ground_truth`` for example. A list
    (OlympiadBench) means that the answer is all of its values."""
    answer_after: str = ""
    """The gold stands behind the last of these in its column: ``####`` for GSM8K."""
    answer_box: bool = False
    """The gold is the last box of its column: ``solution`` in the original layout of MATH."""
    cut: tuple[str, ...] = ()
    """Texts removed from every prompt: instructions of another answer format, which would also
    overlap between any two sets that share them."""
    limit: int | None = None
    """Read only this many rows, the first ones."""

    def __post_init__(self) -> None:
        given = [kind for kind in get_args(Kind) if getattr(self, kind) is not None]
        if len(given) != 1:
            names = ", ".join(get_args(Kind))
            raise InvalidSetting("source", given, f"set exactly one of {names}")
        if self.path is not None and not self.path.endswith(FILE_SUFFIXES):
            raise InvalidSetting("path", self.path, f"use a file of {', '.join(FILE_SUFFIXES)}")
        if not self.prompt:
            raise InvalidSetting("prompt", self.prompt, "name at least one column")
        if self.answer_box and self.answer_after:
            raise InvalidSetting("answer_after", self.answer_after, "leave it out with answer_box")
        for name in ("demo", "size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidSetting(name, value, "use at least 1")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            readers = USED_BY.get(field.name)
            if readers and self.kind not in readers and value != field.default:
                remedy = f"only {' and '.join(readers)} sources read it; leave it out"
                raise InvalidSetting(field.name, value, remedy)

    @property
    def kind(self) -> Kind:
        """Return the kind of the source."""
        kinds: tuple[Kind, ...] = get_args(Kind)
        return next(kind for kind in kinds if getattr(self, kind) is not None)

    @property
    def name(self) -> str:
        """Return the name in reports and errors."""
        match self.kind:
            case "hub":
                return "/".join(filter(None, (self.hub, self.config, self.split)))
            case "path":
                return str(self.path)
            case "demo":
                return f"demo/{self.demo_split}"
            case "reasoning_gym":
                return f"reasoning_gym/{self.reasoning_gym}"


def read_source(source: Source, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Yield every row of `source`, in its order, with those of `columns` that it has.

    Raises BadRow, SourceUnavailable, and errors of the file system for a path.
    """
    records = islice(READERS[source.kind](source), source.limit)
    for number, record in tqdm(records, desc=source.name, unit=" rows", leave=False, delay=3):
        yield _row(source, number, record, columns)


def _row(source: Source, number: int, record: object, columns: Sequence[str]) -> Row:
    try:
        prompt = _problem(record, source)
        answer = _answer(_value(record, source.answer), source)
    except ValueError as error:
        raise BadRow(source.name, number, str(error)) from error
    return Row(prompt, answer, source.name, number, _carried(record, columns))


def _carried(record: object, columns: Sequence[str]) -> tuple[tuple[str, str], ...]:
    found = []
    for column in columns:
        try:
            value = _value(record, column)
        except ValueError:
            continue  # this row lacks the column
        if value is not None and value != "":
            found.append((column, str(value)))
    return tuple(found)


def _problem(record: object, source: Source) -> str:
    """Return the text of the problem; several columns are joined, without empty ones."""
    if isinstance(source.prompt, str):
        return _prompt(_value(record, source.prompt), source.cut)
    values = [_value(record, column) for column in source.prompt]
    return _prompt("\n\n".join(map(_text, filter(None, values))), source.cut)


def _value(record: object, column: str) -> object:
    """Return the value of `column`, which is a name or a path into nested columns."""
    if isinstance(record, dict) and column in record:
        return record[column]
    value = record
    for part in column.split("."):
        if not isinstance(value, dict):
            raise ValueError(f"{_shown(value)} where an object with {part!r} should be")
        if part not in value:
            wanted = part if part == column else f"{part} (of {column})"
            raise ValueError(f"no column {wanted}; there is {', '.join(value) or 'none at all'}")
        value = value[part]
    return value


def _prompt(value: object, cut: tuple[str, ...]) -> str:
    text = _text(value)
    for each in cut:
        if each not in text:
            raise ValueError(f"the prompt has no {each!r}, which is to be cut from it")
        text = text.replace(each, "").strip()
    if not text.strip():
        raise ValueError("the prompt is empty")
    return text


def _text(value: object) -> str:
    text = _last_user_message(value) if isinstance(value, list) else value
    if not isinstance(text, str):
        raise ValueError(f"the prompt is {_shown(text)}, neither text nor chat messages")
    return text


def _last_user_message(messages: list[object]) -> object:
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return message.get("content")
    raise ValueError(f"the prompt {_shown(messages)} has no message of role user")


def _answer(value: object, source: Source) -> str:
    if isinstance(value, list) and value:
        return ", ".join(_answer(each, source) for each in value)
    unusable = isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value))
    if unusable or not isinstance(value, str | int | float):
        raise ValueError(f"the answer is {_shown(value)}, neither text nor a number")
    text = _marked(str(value), source).strip()
    if not text:
        raise ValueError("the answer is empty")
    return text


def _marked(text: str, source: Source) -> str:
    """Return the part of an answer's column that is the gold."""
    if source.answer_box:
        if (box := last_box(text)) is None:
            raise ValueError(f"the answer {_shown(text)} has no box that closes")
        return box
    if not source.answer_after:
        return text
    _, found, after = text.rpartition(source.answer_after)
    if not found:
        raise ValueError(f"the answer {_shown(text)} has no {source.answer_after!r}")
    return after


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read_path(source: Source) -> Numbered:
    return read_file(Path(str(source.path)))


def _read_hub(source: Source) -> Numbered:
    remedy = (
        "check name, config, revision and split; without a connection, download it where there "
        "is one (`hf download --repo-type dataset`) and set path to a file of it"
    )
    return load_dataset(
        source.name,
        remedy,
        str(source.hub),
        name=source.config,
        revision=source.revision,
        split=source.split,
    )


def _read_demo(source: Source) -> Numbered:
    """Return problems of the demo world, which is registered as a plug-in, as an example."""
    (demo,) = entry_points(group=PLUGINS, name="demo")
    problems = demo.load()(source.seed, source.demo_split, source.demo or 0)
    rows = ({"prompt": each.prompt, "answer": each.answer} for each in problems)
    return enumerate(rows, start=1)


def _read_reasoning_gym(source: Source) -> Numbered:
    try:
        import reasoning_gym  # noqa: PLC0415 - optional
    except ImportError as error:
        raise SourceUnavailable(
            f"{source.name} needs a package that is not installed: pip install reasoning-gym"
        ) from error
    try:
        entries = reasoning_gym.create_dataset(
            source.reasoning_gym, size=source.size, seed=source.seed
        )
    except ValueError as error:
        raise SourceUnavailable(f"{source.name} cannot be made: {error}") from error
    rows = ({"prompt": each["question"], "answer": each["answer"]} for each in entries)
    return enumerate(rows, start=1)


READERS: dict[Kind, Callable[[Source], Numbered]] = {
    "hub": _read_hub,
    "path": _read_path,
    "demo": _read_demo,
    "reasoning_gym": _read_reasoning_gym,
}
