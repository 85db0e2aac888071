"""What the file of sums holds, and whether it makes sense.

A file can be damaged, edited by hand, or of a later version. What is not as this version writes it
is refused as a whole: a figure of which a part is nonsense is none.
"""

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

from service.savings.state.series import COVERED, EXIT, JUDGED, SERIES, TRAINED
from stepgrpo_core.savings.estimators import Measured, ServedTokens
from stepgrpo_core.savings.holdout import GROUPS

__all__ = [
    "KEPT",
    "Contents",
    "Damaged",
    "Key",
    "RecentKey",
    "Stratum",
    "Sums",
    "SwitchedOff",
    "add_sums",
    "cell",
    "group_of",
    "read_contents",
    "stratum_of",
]

KEPT = 500
"""The newest of a series of recent values that are kept, for every model and policy."""

LARGEST = 1e24  # of a sum: far above any real one, and its square is still finite
LATEST = 1e11  # seconds since the epoch that a date can be made of
QUOTED = 60  # characters of what is wrong


class Key(NamedTuple):
    """What a sum is of."""

    series: str
    """What is counted, such as ``holdout/held/engine``."""
    model: str
    policy: str
    group: int
    """Random group of the conversation, with the stratum (`cell`)."""


class RecentKey(NamedTuple):
    """What a series of recent values is of."""

    series: str
    model: str
    policy: str


def cell(stratum: int, group: int) -> int:
    """A random group of a stratum as one number, as the file has it."""
    return stratum * GROUPS + group


def stratum_of(cell: int) -> int:
    """The stratum of a cell."""
    return cell // GROUPS


def group_of(cell: int) -> int:
    """The random group of a cell."""
    return cell % GROUPS


class SwitchedOff(NamedTuple):
    """A policy that a guard has switched off for a model."""

    model: str
    policy: str
    since: float
    """Seconds since the epoch: it outlives the process."""
    why: str
    fingerprint: str = ""
    """Of the settings and weights that were judged; empty: whatever they are."""


class Stratum(NamedTuple):
    """Requests that were dealt and served alike."""

    model: str
    since: float
    """When the first server had it, in seconds since the epoch."""
    facts: Mapping[str, Any]
    """Shares, settings and weights, by name."""


Sums = Mapping[str, float]


class Damaged(sqlite3.DatabaseError):
    """The file holds what this version did not write; says what."""


@dataclass(slots=True)
class Contents:
    """All of a file, or what is to be added to it."""

    sums: dict[Key, Sums] = field(default_factory=dict)
    recent: dict[RecentKey, list[float]] = field(default_factory=dict)
    """Oldest first."""
    switched_off: dict[tuple[str, str, str], SwitchedOff] = field(default_factory=dict)
    """By model, policy and fingerprint."""
    secrets: dict[str, bytes] = field(default_factory=dict)
    strata: dict[int, Stratum] = field(default_factory=dict)
    flushes: dict[str, int] = field(default_factory=dict)
    """How often each writer has written."""

    def add(self, other: "Contents") -> None:
        """Take in what was added; what can be there only once stays as it is."""
        add_sums(self.sums, other.sums)
        for key, values in other.recent.items():
            self.recent[key] = [*self.recent.get(key, ()), *values][-KEPT:]
        self.switched_off = other.switched_off | self.switched_off
        self.secrets = other.secrets | self.secrets
        self.strata = other.strata | self.strata
        self.flushes |= other.flushes

    def __bool__(self) -> bool:
        return any((self.sums, self.recent, self.switched_off, self.secrets, self.strata))


def add_sums(to: dict[Key, Sums], sums: Mapping[Key, Sums]) -> None:
    """Add sums by key and name, without changing those of other owners."""
    for key, named in sums.items():
        here = to.get(key, {})
        to[key] = {**here, **{name: here.get(name, 0) + value for name, value in named.items()}}


_OF_PAIRS = {
    *Measured._fields,
    *("natural", "natural_tokens", "unmeasurable", "agreed", "differed", "unjudged"),
}
NAMES: Mapping[str, set[str]] = {
    series: _OF_PAIRS if series in (EXIT, TRAINED) else set(ServedTokens._fields)
    for series in SERIES
}
"""Of the sums in each series. Other series are not read, and left alone."""
_BELOW_NOTHING = {"saved", "error"}
"""Differences; all other sums only grow."""

Query = Callable[[str], Iterable[tuple[Any, ...]]]


def read_contents(query: Query) -> Contents:
    """All that a file holds; `query` executes a statement.

    Raises Damaged for what this version did not write.
    """
    found, sums = Contents(), dict[Key, dict[str, float]]()
    for number, model, since, facts in query("SELECT number, model, since, facts FROM strata"):
        _check(type(number) is int and number > 0, "stratum", number)
        found.strata[number] = Stratum(_text(model), _moment(since), _facts(facts))
    for series, model, policy, group, name, value in query(
        "SELECT series, model, policy, random_group, name, value FROM sums"
    ):
        key = Key(_text(series), _text(model), _text(policy), group)
        _check_sum(key, _text(name), value)
        _check(stratum_of(group) in (0, *found.strata), "group", group)
        sums.setdefault(key, {})[name] = value
    found.sums = {**sums}
    for *of, value in query("SELECT series, model, policy, value FROM recent ORDER BY id"):
        recent = RecentKey(*map(_text, of))
        _check_recent(recent.series, value)
        found.recent.setdefault(recent, []).append(value)
    for table, fingerprint in (("switched_off", "''"), ("verdicts", "fingerprint")):
        for model, policy, since, why, under in query(
            f"SELECT model, policy, since, why, {fingerprint} FROM {table}"  # noqa: S608 - ours
        ):
            off = SwitchedOff(_text(model), _text(policy), _moment(since), _text(why), _text(under))
            found.switched_off[off.model, off.policy, off.fingerprint] = off
    for name, value in query("SELECT name, value FROM secrets"):
        _check(isinstance(value, bytes) and 16 <= len(value) <= 64, "secret", name)
        found.secrets[_text(name)] = value
    for writer, count in query("SELECT id, flushes FROM writers"):
        _check(type(count) is int and count >= 0, "count", count)
        found.flushes[_text(writer)] = count
    return found


def _check(holds: bool, what: str, value: object) -> None:
    if not holds:
        _refuse(what, value)


def _refuse(what: str, value: object) -> NoReturn:
    raise Damaged(f"no {what} of this version: {repr(value)[:QUOTED]}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        _refuse("text", value)
    return value


def _moment(value: object) -> float:
    if not isinstance(value, float) or not 0 <= value <= LATEST:
        _refuse("time", value)
    return value


def _facts(value: object) -> Mapping[str, Any]:
    try:
        facts = json.loads(_text(value))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        _refuse("settings", value)
    return facts


def _number(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _check_sum(key: Key, name: str, value: object) -> None:
    _check(type(key.group) is int and key.group >= 0, "group", key.group)
    known = NAMES.get(key.series)
    _check(known is None or name in known, "sum", f"{key.series}: {name}")
    _check(_number(value) and abs(value) <= LARGEST, "value", value)  # type: ignore[arg-type]
    _check(name in _BELOW_NOTHING or value >= 0, "value", value)  # type: ignore[operator]


def _check_recent(series: str, value: object) -> None:
    shares = series.partition("/")[0] in (JUDGED, COVERED)
    _check(_number(value) and (not shares or value in (0, 1)), "recent value", value)
