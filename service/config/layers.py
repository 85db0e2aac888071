"""Options that a flag, the environment or a YAML file sets, in this order; and their values."""

import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["BadOption", "Option", "Resolved", "read_yaml", "reader_of", "resolve"]

PREFIX = "STEPGRPO_EXIT_"
CONFIG = "STEPGRPO_EXIT_CONFIG"
BUILT_IN = "built-in default"


class BadOption(ValueError):
    """A server option that cannot be honoured: the message names source, key, value, remedy."""

    def __init__(self, source: str, key: str, value: object, remedy: str) -> None:
        super().__init__(f"{source}: {key}={value!r} cannot be honoured: {remedy}")


@dataclass(frozen=True, slots=True)
class Option:
    """One option: ``--exit-a-name``, ``STEPGRPO_EXIT_A_NAME``, or ``a_name`` in the file."""

    name: str
    read: Callable[[Any], Any]
    """Its value from a text, or from what YAML has; raises ValueError with the remedy."""
    help: str
    switch: bool = False
    """On or off: as a flag it takes no value."""
    lead: str = "--exit-"
    """Of the flag."""
    prefix: str = PREFIX
    """Of the variable."""

    @property
    def flag(self) -> str:
        """On the command line."""
        return self.lead + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """In the environment."""
        return self.prefix + self.name.upper()


@dataclass(frozen=True, slots=True)
class Resolved:
    """What was set, by option, and where."""

    values: Mapping[str, Any]
    sources: Mapping[str, tuple[str, str]]
    """Place and key."""

    def refusal(self, name: str, value: object, remedy: str) -> BadOption:
        """The error for an option whose value turned out to be wrong."""
        source, key = self.sources.get(name, (BUILT_IN, name))
        return BadOption(source, key, value, remedy)


def resolve(
    options: Mapping[str, Option],
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    file: tuple[str, Mapping[str, Any]],
    *,
    prefix: str = PREFIX,
) -> Resolved:
    """The options that are set anywhere. `flags` are by name, None where not given; `file` is
    the name of the YAML file and what it holds; no variable that begins with `prefix` may be none
    of theirs. Raises BadOption."""
    place, content = file
    known = {option.variable for option in options.values()} | {CONFIG}
    _check_names({k: v for k, v in environment.items() if k.startswith(prefix)}, known)
    for name, value in content.items():
        if name not in options:
            raise BadOption(place, str(name), value, _advice(str(name), options))
    values: dict[str, Any] = {}
    sources: dict[str, tuple[str, str]] = {}
    for name, option in options.items():
        for source, key, value in (
            ("flag", option.flag, flags.get(name)),
            ("environment", option.variable, environment.get(option.variable)),
            (place, name, content.get(name)),
        ):
            if value is not None:
                values[name] = _read(option, value, source, key)
                sources[name] = source, key
                break
    return Resolved(values, sources)


def _check_names(environment: Mapping[str, str], known: set[str]) -> None:
    for variable, value in environment.items():
        if variable not in known:
            raise BadOption("environment", variable, value, _advice(variable, known))


def _advice(name: str, known: typing.Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}use one of {', '.join(sorted(known))}"


def _read(option: Option, value: Any, source: str, key: str) -> Any:
    try:
        return option.read(value)
    except (ValueError, TypeError) as error:
        raise BadOption(source, key, value, str(error)) from error


def read_yaml(path: Path) -> tuple[str, Mapping[str, Any]]:
    """The name of a YAML file and its keys; raises BadOption where it has none."""
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


def reader_of(hint: Any) -> Callable[[Any], Any]:
    """How a value of this type is read."""
    if typing.get_origin(hint) is types.UnionType:  # X | None
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is typing.Literal:
        return _choice(typing.get_args(hint))
    readers: dict[Any, Callable[[Any], Any]] = {
        bool: _boolean,
        int: _whole,
        float: _number,
        str: _text,
    }
    return readers[hint]


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


def _choice(choices: tuple[Any, ...]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"use one of {', '.join(choices)}")
        return value

    return read
