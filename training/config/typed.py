"""Build frozen dataclasses from nested mappings: no unknown keys, no type conversion."""

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.names import suggest
from training.config.layers import InvalidConfig, Route

__all__ = ["at_least", "build", "check_leaf", "refused"]

_IN_WORDS: Mapping[Any, str] = {
    str: "text (quoted)",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    types.NoneType: "null",
}


def build(cls: Any, values: Any, route: Route, below: Any = None) -> Any:
    """Return the dataclass `cls` with the values of a mapping.

    `below` is an instance with the values of missing keys. Sections, optional sections and lists of
    sections nest. Raises InvalidConfig for an unknown or missing key, and for a value of another
    type or outside its range.
    """
    if not isinstance(values, Mapping):
        raise refused(route, values, "use a mapping, key: value")
    fields = {each.name: each for each in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise InvalidConfig(f" is unknown: {suggest(key, fields)}", (*route, key))
    hints = typing.get_type_hints(cls)
    given = {
        key: _read(hints[key], value, (*route, key), fields[key].default)
        for key, value in values.items()
    }
    for name, each in fields.items():
        bare = each.default is each.default_factory is dataclasses.MISSING
        if bare and below is None and name not in given:
            raise InvalidConfig(f" is missing: write {_in_words(hints[name])}", (*route, name))
    try:
        return dataclasses.replace(below, **given) if below else cls(**given)
    except InvalidSetting as error:
        raise refused((*route, *error.name.split(".")), error.value, error.remedy) from error


def check_leaf(hint: Any, value: Any, route: Route) -> Any:
    """Return `value` if it has the type `hint`, lists as tuples; raises InvalidConfig."""
    adapter = TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    try:  # JSON has lists for tuples, as YAML does; no other type is converted
        return adapter.validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        raise refused(route, value, f"use {_in_words(hint)}") from error


def refused(route: Route, value: object, remedy: str) -> InvalidConfig:
    """Return the error for an invalid value."""
    return InvalidConfig(f"={value!r} is invalid: {remedy}", route)


def at_least(low: int, **counts: int) -> None:
    """Raise InvalidSetting for the first of `counts` below `low`."""
    for name, value in counts.items():
        if value < low:
            raise InvalidSetting(name, value, f"use {low} or more")


def _read(hint: Any, value: Any, route: Route, default: Any) -> Any:
    options = _options(hint)
    section = next(filter(dataclasses.is_dataclass, options), None)
    if section and not (value is None and types.NoneType in options):
        below = default if dataclasses.is_dataclass(default) else None
        return build(section, value, route, below)
    if get_origin(hint) is tuple and dataclasses.is_dataclass(item := get_args(hint)[0]):
        if not isinstance(value, list):
            raise refused(route, value, "use a list of mappings")
        return tuple(build(item, each, (*route, place)) for place, each in enumerate(value))
    return check_leaf(hint, value, route)


def _options(hint: Any) -> tuple[Any, ...]:
    union = get_origin(hint) in (typing.Union, types.UnionType)
    return get_args(hint) if union else (hint,)


def _in_words(hint: Any) -> str:
    options = _options(hint)
    if len(options) > 1:
        return " or ".join(map(_in_words, options))
    kind = get_origin(hint) or hint
    if kind is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if issubclass(kind, enum.Enum):
        return " or ".join(repr(each.value) for each in kind)
    if kind in (list, tuple):
        return f"a list of {_in_words(get_args(hint)[0])}"
    return _IN_WORDS.get(kind, "a mapping")
