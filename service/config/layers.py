"""Options of the server: dataclass fields set by a flag, the environment or a file.

A field is the only definition of its option. Its name makes the flag, the variable and the key of
the YAML file, its type reads them, and its docstring is the help text and the row in the reference.
"""

import argparse
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from stepgrpo_core import InvalidSetting
from stepgrpo_core.docstrings import field_docs
from stepgrpo_core.names import suggest

__all__ = [
    "NO_FILE",
    "BadOption",
    "Option",
    "Resolved",
    "add_option_flags",
    "options_of",
    "read_yaml",
    "resolve",
]

BUILT_IN = "built-in default"
NO_FILE: tuple[str, Mapping[str, Any]] = ("file", {})

Section = TypeVar("Section")
Reader = Callable[[Any], Any]
"""A function that reads a value from text or YAML data; raises ValueError with the remedy."""


class BadOption(ValueError):
    """A server option that cannot be honored: the message names source, key, value, remedy."""

    def __init__(self, source: str, key: str, value: object, remedy: str) -> None:
        super().__init__(f"{source}: {key}={value!r} is invalid: {remedy}")


@dataclass(frozen=True, slots=True)
class Option:
    """One option, such as `--exit-a-name`, `STEPGRPO_EXIT_A_NAME`, and `a_name` in the file."""

    name: str
    flag: str
    variable: str
    read: Reader
    help: str
    """Help text in sentences; the default follows."""
    default: Any
    switch: bool
    """True for a boolean option, whose flag takes no value."""

    @property
    def dest(self) -> str:
        """The attribute of the parsed arguments."""
        return self.flag.lstrip("-").replace("-", "_")


@dataclass(frozen=True, slots=True)
class Resolved:
    """The options that some source sets."""

    values: Mapping[str, Any]
    sources: Mapping[str, tuple[str, str]]
    """The source of each value, and its key there."""

    def build(self, section: type[Section]) -> Section:
        """Return the dataclass with the values set for its fields; raises BadOption."""
        names = self.values.keys() & typing.get_type_hints(section).keys()
        try:
            return section(**{name: self.values[name] for name in names})
        except InvalidSetting as error:
            raise self.refusal(error.name, error.value, error.remedy) from error

    def refusal(self, name: str, value: object, remedy: str) -> BadOption:
        """Return the error for an option with an invalid value."""
        source, key = self.sources.get(name, (BUILT_IN, name))
        return BadOption(source, key, value, remedy)


def options_of(
    sections: Iterable[type],
    flag_prefix: str,
    variable_prefix: str,
    readers: Mapping[str, Reader] = types.MappingProxyType({}),
    choices: Mapping[str, Iterable[str]] = types.MappingProxyType({}),
) -> dict[str, Option]:
    """Return the fields of dataclasses as options, by name.

    `readers` are for fields whose type does not determine how to read them, `choices` for those
    whose type does not list their values.
    """
    found: dict[str, Option] = {}
    for section in sections:
        docs, defaults = field_docs(section), section()
        for name, hint in typing.get_type_hints(section).items():
            values = choices.get(name) or _literals(hint)
            found[name] = Option(
                name,
                flag=flag_prefix + name.replace("_", "-"),
                variable=variable_prefix + name.upper(),
                read=readers.get(name) or _reader_of(hint),
                help=docs[name] + (f" Choices: {', '.join(values)}." if values else ""),
                default=getattr(defaults, name),
                switch=hint is bool,
            )
    return found


def add_option_flags(group: Any, options: Mapping[str, Option]) -> None:
    """Add the flags of all options to a group of a parser.

    A flag that is not given sets no attribute: vLLM's help would show its None as the default.
    """
    for option in options.values():
        text = f"{option.help} Default: {option.default!r}.".replace("%", "%%")
        how: dict[str, Any] = {"metavar": "VALUE"}
        if option.switch:
            how = {"action": argparse.BooleanOptionalAction}
        group.add_argument(option.flag, default=argparse.SUPPRESS, help=text, **how)


def resolve(
    options: Mapping[str, Option],
    args: argparse.Namespace,
    environment: Mapping[str, str],
    file: tuple[str, Mapping[str, Any]] = NO_FILE,
    *,
    prefix: str,
    besides: Iterable[str] = (),
) -> Resolved:
    """Return the set options: by a flag, else by the environment, else by the file.

    `file` is the name of the YAML file and its content. Variables that begin with `prefix` must
    be options or `besides`. Raises BadOption.
    """
    place, content = file
    known = {option.variable for option in options.values()} | {*besides}
    for variable in environment:
        if variable.startswith(prefix) and variable not in known:
            remedy = suggest(variable, known)
            raise BadOption("environment", variable, environment[variable], remedy)
    for name, value in content.items():
        if name not in options:
            raise BadOption(place, str(name), value, suggest(name, options))
    values: dict[str, Any] = {}
    sources: dict[str, tuple[str, str]] = {}
    for name, option in options.items():
        for source, key, value in (
            ("flag", option.flag, getattr(args, option.dest, None)),
            ("environment", option.variable, environment.get(option.variable)),
            (place, name, content.get(name)),
        ):
            if value is not None:
                values[name] = _read(option, value, source, key)
                sources[name] = source, key
                break
    return Resolved(values, sources)


def _read(option: Option, value: Any, source: str, key: str) -> Any:
    try:
        return option.read(value)
    except (ValueError, TypeError) as error:
        raise BadOption(source, key, value, str(error)) from error


def read_yaml(path: Path) -> tuple[str, Mapping[str, Any]]:
    """Return the name of a YAML file and its content; raises BadOption if it cannot be read."""
    name = f"file {path}"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadOption("flag", "--exit-config", str(path), str(error.strerror)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise BadOption("flag", "--exit-config", str(path), f"it is not YAML: {problem}") from error
    if content is None:
        return name, {}
    if not isinstance(content, dict):
        raise BadOption("flag", "--exit-config", str(path), "it must hold keys and values")
    return name, content


def _reader_of(hint: Any) -> Reader:
    """Return the reader of values of a type, which may be optional."""
    hint = _required(hint)
    if choices := _literals(hint):
        return lambda value: _choice(value, choices)
    return _READERS[hint]


def _required(hint: Any) -> Any:
    """Return X of `X | None`."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is types.UnionType else hint


def _literals(hint: Any) -> tuple[str, ...]:
    """Return the values of a Literal; () for any other type."""
    hint = _required(hint)
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def _boolean(value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() not in words:
        raise ValueError("use true or false")
    return words[str(value).lower()]


def _whole(value: Any) -> int:
    try:
        if not isinstance(value, bool | float):
            return int(value)
    except ValueError:
        pass
    raise ValueError("use a whole number")


def _number(value: Any) -> float:
    try:
        if not isinstance(value, bool) and math.isfinite(float(value)):
            return float(value)
    except ValueError:
        pass
    raise ValueError("use a number")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("use a text")
    return value


def _path(value: Any) -> Path:
    if not isinstance(value, str):
        raise ValueError("use the name of a file")
    return Path(value)


def _choice(value: Any, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise ValueError(f"use one of {', '.join(choices)}")
    return value


_READERS: Mapping[Any, Reader] = {
    bool: _boolean,
    int: _whole,
    float: _number,
    str: _text,
    Path: _path,
}
