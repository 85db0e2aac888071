"""Strata: requests that were dealt and served alike, so that their means can be compared.

With another share held out, or other exits, sums of before and after are of different requests:
added up, a period of long conversations of which half were held out and one of short ones of which
few were would show a saving where there is none. So every change of what decides how requests are
dealt or served begins a stratum. Figures are made within strata, and then combined (`rows`).

The number of a stratum is a hash of its facts, so processes and restarts with the same settings
share it. Zero is what earlier versions counted, under settings that nobody wrote down. What judges
exits (the guard, the trust in predictions) goes by the fingerprint, the hash of how requests are
served: who is compared does not matter there.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from service.savings.state.contents import Stratum
from service.savings.state.store import SumStore

__all__ = ["DEALING", "Strata", "changes", "said"]

DEALING = ("holdout", "pairs")
"""Facts that decide who is compared, not how anybody is served."""

BYTES = 5  # of a number: with a group below it fits SQLite's integers
SHOWN = 40  # characters of a value

Facts = Mapping[str, Any]

_log = logging.getLogger("vllm.stepgrpo")


def changes(before: Facts, after: Facts) -> dict[str, list[Any]]:
    """What differs, by name: the value before and after."""
    names = sorted({*before, *after})
    found = {name: [before.get(name), after.get(name)] for name in names}
    return {name: each for name, each in found.items() if each[0] != each[1]}


def said(changed: Mapping[str, Iterable[Any]]) -> str:
    """Changes in words."""
    return ", ".join(
        f"{name} {' → '.join(_short(each) for each in both)}" for name, both in changed.items()
    )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


class Strata:
    """Those of the requests of this server, by the name of their model.

    Before `begin`, and without it, all count as of earlier versions do.
    """

    def __init__(self, store: SumStore) -> None:
        self._store = store
        self._facts: Facts | None = None
        self._numbers: dict[tuple[str, str], int] = {}
        self._fingerprints: dict[str, str] = {}

    def begin(self, facts: Facts) -> None:
        """Have the facts that all models of this server share."""
        self._facts = facts

    def number(self, model: str, weights: str) -> int:
        """The stratum of a model's requests; `weights` tells what is served by its name."""
        if self._facts is None:
            return 0
        found = self._numbers.get((model, weights))
        if found is None:
            found = self._numbers[model, weights] = self._enter(model, weights, self._facts)
        return found

    def fingerprint(self, model: str) -> str:
        """Of how a model's requests are served now; empty: not known."""
        return self._fingerprints.get(model, "")

    def _enter(self, model: str, weights: str, common: Facts) -> int:
        facts = {**common, "weights": weights}
        served = {name: value for name, value in facts.items() if name not in DEALING}
        self._fingerprints[model] = _digest(served).hex()
        number = int.from_bytes(_digest([model, facts])) or 1
        known = self._store.strata()
        if number not in known:
            self._say(model, facts, [each for each in known.values() if each.model == model])
            self._store.add_stratum(number, Stratum(model, time.time(), facts))
        return number

    def _say(self, model: str, facts: Facts, known: list[Stratum]) -> None:
        if known:
            changed = said(changes(max(known, key=lambda each: each.since).facts, facts))
        elif any(key.model == model for key in self._store.read("")):
            changed = "an earlier version did not note its settings"
        else:
            return
        _log.warning("Savings of %s are counted in a new stratum: %s.", model, changed)


def _digest(facts: object) -> bytes:
    text = json.dumps(facts, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=BYTES).digest()
