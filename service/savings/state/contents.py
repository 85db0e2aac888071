"""Contents of the state file and their validation.

A file can be damaged, edited by hand, or written by a later version. A file with any value that
this version would not write is rejected as a whole, because estimates from partly invalid sums are
worthless.
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
"""Number of newest values kept in a series of recent values, for every model and policy."""

LARGEST = 1e24  # limit of a sum: far above real ones, with a finite square
LATEST = 1e11  # seconds since the epoch; datetime cannot represent much more
QUOTED = 60  # characters of an invalid value in a message


class Key(NamedTuple):
    """Key of a sum."""

    series: str
    """Name of the series, such as ``holdout/held/engine``."""
    model: str
    policy: str
    group: int
    """Random group of the conversation combined with the stratum (`cell`)."""


class RecentKey(NamedTuple):
    """Key of a series of recent values."""

    series: str
    model: str
    policy: str


def cell(stratum: int, group: int) -> int:
    """Combine a stratum and a random group in one number, as stored in the file."""
    return stratum * GROUPS + group


def stratum_of(cell: int) -> int:
    """Return the stratum of a cell."""
    return cell // GROUPS


def group_of(cell: int) -> int:
    """Return the random group of a cell."""
    return cell % GROUPS


class SwitchedOff(NamedTuple):
    """A policy that the quality gate has switched off for a model."""

    model: str
    policy: str
    since: float
    """Seconds since the epoch."""
    why: str
    fingerprint: str = ""
    """Fingerprint of the judged settings and weights; empty: any."""


class Stratum(NamedTuple):
    """Requests that were assigned and served under equal settings."""

    model: str
    since: float
    """First use by any server, in seconds since the epoch."""
    facts: Mapping[str, Any]
    """Shares, settings and weights, by name."""


Sums = Mapping[str, float]


class Damaged(sqlite3.DatabaseError):
    """The file contains something that this version did not write; the message says what."""


@dataclass(slots=True)
class Contents:
    """All data of a file, or data to be added to it."""

    sums: dict[Key, Sums] = field(default_factory=dict)
    recent: dict[RecentKey, list[float]] = field(default_factory=dict)
    """Values from oldest to newest."""
    switched_off: dict[tuple[str, str, str], SwitchedOff] = field(default_factory=dict)
    """Switched-off policies by model, policy and fingerprint."""
    secrets: dict[str, bytes] = field(default_factory=dict)
    strata: dict[int, Stratum] = field(default_factory=dict)
    flushes: dict[str, int] = field(default_factory=dict)
    """Number of writes by each writer."""

    def add(self, other: "Contents") -> None:
        """Merge added data; entries that can exist only once keep their first value."""
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
    """Add `sums` to `to`, by key and name, without modifying shared mappings."""
    for key, named in sums.items():
        here = to.get(key, {})
        to[key] = {**here, **{name: here.get(name, 0) + value for name, value in named.items()}}


_PAIR_SUMS = {
    *Measured._fields,
    *("natural", "natural_tokens", "unmeasurable", "agreed", "differed", "unjudged"),
}
NAMES: Mapping[str, set[str]] = {
    series: _PAIR_SUMS if series in (EXIT, TRAINED) else set(ServedTokens._fields)
    for series in SERIES
}
"""Allowed names of the sums in each series. Unknown series are ignored and preserved."""
_SIGNED = {"saved", "error"}
"""Differences, which can be negative; all other sums only grow."""

Query = Callable[[str], Iterable[tuple[Any, ...]]]


def read_contents(query: Query) -> Contents:
    """Read all data of a file; `query` executes a statement. Raises Damaged for data that this
    version did not write."""
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
            f"SELECT model, policy, since, why, {fingerprint} FROM {table}"  # noqa: S608 - constants
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
    _check(name in _SIGNED or value >= 0, "value", value)  # type: ignore[operator]


def _check_recent(series: str, value: object) -> None:
    shares = series.partition("/")[0] in (JUDGED, COVERED)
    _check(_number(value) and (not shares or value in (0, 1)), "recent value", value)
