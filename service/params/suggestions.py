"""Find misspelled and misplaced parameters, and suggest the right ones.

vLLM ignores unknown parameters silently, and the user would pay for thinking without a bound.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from service.params.table import CONTAINER, EVENTS, FOREIGN, PARAMETERS
from service.records.requested import BadParameter
from stepgrpo_core.names import closest

__all__ = ["CONTAINERS", "misplaced_parameter"]

_NAMES = (*PARAMETERS, EVENTS)
_OURS = tuple(f"{CONTAINER}.{name}" for name in _NAMES)
_PATHS = (*(row.path for row in FOREIGN), *_OURS)
CONTAINERS = tuple(dict.fromkeys(path.split(".")[0] for path in _PATHS if "." in path))
"""Objects of a body that contain parameters."""
_WORDS = ("think", "budget", "exit_", "reasoning_effort")
_CUTOFF = 0.9  # llama.cpp's "reasoning_format" must not be taken for "reasoning_effort"
_CACHE_SIZE = 1024  # keys; clients send the same ones again and again
_LONGEST = 100  # characters of a key that is cached


def misplaced_parameter(body: Mapping[str, Any]) -> BadParameter | None:
    """Return an error for the first key that resembles a parameter; None if there is none."""
    for path, value in _keys(body):
        meant = _cached_meaning(path) if len(path) <= _LONGEST else _meant(path)
        if meant is not None:
            return BadParameter(path, value, meant)
    return None


def _keys(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the path and value of each key at a place where parameters may be."""
    for name, value in body.items():
        yield name, value
        if name in (*CONTAINERS, "extra_body") and isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", each) for inner, each in value.items())


def _meant(path: str) -> str | None:
    """Return how to fix a key that resembles a parameter; None for any other key."""
    if path in _PATHS or path in CONTAINERS:
        return None
    place, _, leaf = path.rpartition(".")
    if place == "extra_body":
        known = [*_PATHS, *CONTAINERS]
        return "put what is in 'extra_body' into the top level" if leaf in known else None
    elsewhere = [each for each in _PATHS if each.rpartition(".")[2] == leaf]
    if elsewhere and (any(word in leaf for word in _WORDS) or (leaf, place) == ("effort", "")):
        return _advice(elsewhere)
    near = _near_here(place, leaf) or _near_ours(place, leaf)
    return _advice(near, "did you mean") if near else None


_cached_meaning = functools.lru_cache(_CACHE_SIZE)(_meant)


def _near_here(place: str, leaf: str) -> list[str]:
    """Return a parameter or container in the same object with nearly the same name."""
    names = {each.rpartition(".")[2]: each for each in _PATHS if each.rpartition(".")[0] == place}
    if not place:
        names |= {each: each for each in CONTAINERS}
    plain = {_plain(name): path for name, path in names.items()}
    near = closest(_plain(leaf), plain, _CUTOFF)
    return [plain[near]] if near else []


def _near_ours(place: str, leaf: str) -> list[str]:
    """Return our parameter for a name with ``exit`` or ``xarg`` in it, which only ours have."""
    if place not in ("", CONTAINER):
        return []
    if "xarg" in leaf.lower():
        return [CONTAINER]
    if "exit" not in leaf.lower():
        return []
    return [f"{CONTAINER}.{closest(leaf, _NAMES, 0.0)}"]


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _advice(paths: list[str], opening: str = "pass it as") -> str:
    written = (_written(path) for path in paths)
    return f"{opening} {' or '.join(written)}" + ("?" if opening != "pass it as" else "")


def _written(path: str) -> str:
    place, _, leaf = path.rpartition(".")
    return f"{{{place!r}: {{{leaf!r}: ...}}}}" if place else repr(leaf)
