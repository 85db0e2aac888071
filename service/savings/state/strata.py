"""Strata: requests that were assigned and served under equal settings, so that their means are
comparable.

When the holdout share or the exits change, sums from before and after describe different requests.
Pooled, a period of long conversations with half of them held out and a period of short ones with
few held out would show savings where there are none (Simpson's paradox). Therefore every change of
a setting that affects assignment or serving begins a stratum. Estimates are computed within strata
and then combined (`estimates`).

The number of a stratum is a hash of its facts, so processes and restarts with equal settings share
it. Zero is the stratum of earlier versions, which recorded no settings. The quality gate and the
trust in predictions depend on the fingerprint instead, the hash of the settings that affect serving
only.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from service.savings.state.contents import Stratum
from service.savings.state.store import SumStore

__all__ = ["ASSIGNMENT_FACTS", "Strata", "changes", "describe_changes"]

ASSIGNMENT_FACTS = ("holdout", "pairs")
"""Facts that affect only assignment, not serving."""

BYTES = 5  # of a stratum number: combined with a group, it fits SQLite's integers
SHOWN = 40  # characters of a value in a message

Facts = Mapping[str, Any]

_log = logging.getLogger("vllm.stepgrpo")


def changes(before: Facts, after: Facts) -> dict[str, list[Any]]:
    """Return facts that differ, by name: the values before and after."""
    names = sorted({*before, *after})
    found = {name: [before.get(name), after.get(name)] for name in names}
    return {name: each for name, each in found.items() if each[0] != each[1]}


def describe_changes(changed: Mapping[str, Iterable[Any]]) -> str:
    """Describe changed facts in a phrase."""
    return ", ".join(
        f"{name} {' → '.join(_short(each) for each in both)}" for name, both in changed.items()
    )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


class Strata:
    """Strata of this server's requests, by model name. Until `begin` is called, all requests are in
    stratum zero."""

    def __init__(self, store: SumStore) -> None:
        self._store = store
        self._facts: Facts | None = None
        self._numbers: dict[tuple[str, str], int] = {}
        self._fingerprints: dict[str, str] = {}

    def begin(self, facts: Facts) -> None:
        """Set the facts that all models of this server share."""
        self._facts = facts

    def number(self, model: str, weights: str) -> int:
        """Return the stratum of a model's requests; `weights` identifies the model that has this
        name."""
        if self._facts is None:
            return 0
        found = self._numbers.get((model, weights))
        if found is None:
            found = self._numbers[model, weights] = self._enter(model, weights, self._facts)
        return found

    def fingerprint(self, model: str) -> str:
        """Return the fingerprint of a model's current settings; empty if unknown."""
        return self._fingerprints.get(model, "")

    def _enter(self, model: str, weights: str, common: Facts) -> int:
        facts = {**common, "weights": weights}
        served = {name: value for name, value in facts.items() if name not in ASSIGNMENT_FACTS}
        self._fingerprints[model] = _digest(served).hex()
        number = int.from_bytes(_digest([model, facts])) or 1
        known = self._store.strata()
        if number not in known:
            self._log_change(model, facts, [each for each in known.values() if each.model == model])
            self._store.add_stratum(number, Stratum(model, time.time(), facts))
        return number

    def _log_change(self, model: str, facts: Facts, known: list[Stratum]) -> None:
        if known:
            latest = max(known, key=lambda each: each.since)
            changed = describe_changes(changes(latest.facts, facts))
        elif any(key.model == model for key in self._store.read("")):
            changed = "an earlier version did not record its settings"
        else:
            return
        _log.warning("Savings of %s are counted in a new stratum: %s.", model, changed)


def _digest(facts: object) -> bytes:
    text = json.dumps(facts, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=BYTES).digest()
