"""Merge YAML files and overrides into one nested mapping, and tell where each value comes from.

Later layers override earlier ones: mappings merge, all other values replace. A mapping over a list
merges into the items at its keys, counted from 0, as in ``data.train.0.limit=5``. A reward with
another name replaces the whole reward, because its constants belong to the name.

YAML is read safely, with the numbers, booleans and dates of YAML 1.2: ``1e-6`` is a number, ``no``
and ``2026-01-31`` are text. A repeated key is an error.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from stepgrpo_core.names import suggest

__all__ = [
    "PRESETS",
    "InvalidConfig",
    "Layer",
    "Route",
    "dump_yaml",
    "merge",
    "origin_of",
    "parse_override",
    "preset_names",
    "read_layers",
]

PRESETS = Path(__file__).parent / "presets"

Route: TypeAlias = tuple[str | int, ...]
"""Keys and list indices from the top of a configuration to a value."""


class InvalidConfig(ValueError):
    """An invalid configuration; the message names file or override, key, value and remedy."""

    def __init__(self, problem: str, route: Route = (), origin: str = "") -> None:
        key = ".".join(map(str, route))
        super().__init__(f"{origin}: {key}{problem}" if origin else f"{key}{problem}")
        self.problem = problem
        self.route = route


@dataclass(frozen=True, slots=True)
class Layer:
    """The values of one file or one override."""

    origin: str
    """Path of the file, or text of the override."""
    values: Mapping[str, Any]


def preset_names() -> tuple[str, ...]:
    """Return the shipped presets, such as ``demo`` and ``methods/lp``."""
    found = (path.relative_to(PRESETS).with_suffix("") for path in PRESETS.rglob("*.yaml"))
    return tuple(sorted(name.as_posix() for name in found if name.parts[0] != "accelerate"))


def read_layers(name: str, base: Path, below: tuple[Path, ...] = ()) -> list[Layer]:
    """Return the layers of a file and of the files that it extends, the lowest first.

    `name` is a shipped preset or a path relative to the folder `base`; `below` are the files whose
    ``extends`` led here. Raises InvalidConfig for a file that is not found, is not a mapping or
    extends itself.
    """
    path = _find(name, base)
    if path in below:
        chain = " -> ".join(each.name for each in (*below, path))
        raise InvalidConfig(f" goes in a circle: {chain}; remove one", ("extends",), str(path))
    values = _parse(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(values, dict):
        raise InvalidConfig("the file holds no mapping; write key: value", origin=str(path))
    parent = values.pop("extends", None)
    if not isinstance(parent, str | None):
        raise InvalidConfig(f"={parent!r} is not one file or preset", ("extends",), str(path))
    lower = read_layers(parent, path.parent, (*below, path)) if parent else []
    return [*lower, Layer(str(path), values)]


def parse_override(text: str) -> Layer:
    """Return ``rollout.exit.threshold=0.9`` as a layer; the value is YAML. Raises InvalidConfig."""
    origin = f"override {text!r}"
    key, equals, value = text.partition("=")
    keys = key.split(".")
    if not equals or not all(keys):
        raise InvalidConfig("write section.key=value", origin=origin)
    values = _parse(value, origin)
    for each in reversed(keys):
        values = {each: values}
    return Layer(origin, values)


def merge(layers: Iterable[Layer]) -> dict[str, Any]:
    """Return all layers as one mapping, in which later layers override earlier ones."""
    merged: dict[str, Any] = {}
    for layer in layers:
        if _reward_name(layer.values) not in (None, _reward_name(merged)):
            merged.pop("reward", None)
        merged = _overlay(merged, layer.values)
    return merged


def origin_of(layers: Sequence[Layer], route: Route) -> str:
    """Return the origin of the last layer that sets `route`, or the mapping that contains it."""
    for length in range(len(route), 0, -1):
        for layer in reversed(layers):
            if _holds(layer.values, route[:length]):
                return layer.origin
    return " + ".join(layer.origin for layer in layers)


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Return YAML that reads back as the same values, with the keys in their order."""
    text = io.StringIO()
    dumper = yaml.SafeDumper(text, sort_keys=False, allow_unicode=True, width=100)
    dumper.yaml_implicit_resolvers = _RESOLVERS  # quotes text that would be read as a number
    dumper.yaml_representers = dumper.yaml_representers | {str: _represent_text}
    dumper.open()
    dumper.represent(values)
    dumper.close()
    return text.getvalue()


def _find(name: str, base: Path) -> Path:
    for path in (base / name, PRESETS / f"{name}.yaml"):
        if path.is_file():
            return path.resolve()
    remedy = suggest(name, preset_names())
    raise InvalidConfig(f"{name!r} is neither a file nor a shipped preset: {remedy}")


def _overlay(
    below: Mapping[str, Any], above: Mapping[str, Any], route: Route = ()
) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old, here = merged.get(key), (*route, key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _overlay(old, value, here)
        elif isinstance(old, list) and isinstance(value, Mapping) and value:
            merged[key] = _overlay_items(old, value, here)
        else:
            merged[key] = value
    return merged


def _overlay_items(below: list[Any], above: Mapping[str, Any], route: Route) -> list[Any]:
    """Return a list with the items at the keys of `above` overlaid."""
    items = {str(place): item for place, item in enumerate(below)}
    for place in above:
        if str(place) not in items:
            remedy = f"there are items 0 to {len(below) - 1}; write the whole list to have others"
            raise InvalidConfig(f" is no item of the list: {remedy}", (*route, place))
    named = {str(place): value for place, value in above.items()}
    return list(_overlay(items, named, route).values())


def _reward_name(values: Mapping[str, Any]) -> object:
    reward = values.get("reward")
    return reward.get("name") if isinstance(reward, Mapping) else None


def _holds(values: Any, route: Route) -> bool:
    for key in route:
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _resolvers() -> dict[str | None, list[tuple[str, re.Pattern[str]]]]:
    """Return PyYAML's resolvers of plain scalars by first character, corrected to YAML 1.2."""
    replaced = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
    table = {
        first: [entry for entry in entries if entry[0] not in replaced]
        for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for first in "tTfF":
        table[first].append((replaced[0], re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")))
    for first in "+-.0123456789":
        number = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")
        table[first].append(("tag:yaml.org,2002:float", number))
    return table


_RESOLVERS = _resolvers()


def _parse(text: str, origin: str) -> Any:
    loader = yaml.SafeLoader(text)
    loader.yaml_implicit_resolvers = _RESOLVERS
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_duplicates(node, origin)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise InvalidConfig(f"this is not YAML: {error}", origin=origin) from error
    finally:
        loader.dispose()


def _represent_text(dumper: Any, text: str) -> Any:
    style = '"' if "\n" in text else None  # keeps line breaks visible
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _refuse_duplicates(node: Any, origin: str) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item, origin)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                place = f"{origin}, line {key.start_mark.line + 1}"
                raise InvalidConfig(" occurs twice; keep one", (key.value,), place)
            seen.add(str(key.value))
            _refuse_duplicates(value, origin)
