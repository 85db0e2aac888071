"""The blocks of responses that ended lately, by the id that their clients know.

Many SDKs drop what is new to them from streams, but all keep the id. The API key that made the
request finds its block here for some minutes; to any other it does not exist.
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["KEPT_SECONDS", "MOST_BYTES", "RecentResponses"]

KEPT_SECONDS = 300.0
MOST_BYTES = 8 * 1024 * 1024
"""Of all blocks, ids and what keeps them; the oldest go first."""
_OVERHEAD = 512  # bytes of an entry's objects

Key = tuple[bytes, str]


@dataclass(frozen=True, slots=True)
class _Kept:
    block: bytes
    """As JSON."""
    until: float
    """By the clock."""


class RecentResponses:
    """What is kept; one event loop's, no locks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._bytes = 0

    def keep(self, caller: bytes, ids: Iterable[str], block: Mapping[str, Any]) -> None:
        """Keep a response's block under its `ids`; what had one of them before is gone."""
        kept = _Kept(json.dumps(block).encode(), self._clock() + KEPT_SECONDS)
        for each in ids:
            self._drop((caller, each))
            self._kept[caller, each] = kept
            self._bytes += _size((caller, each), kept)
        while self._kept and (self._bytes > MOST_BYTES or self._is_over(next(iter(self._kept)))):
            self._drop(next(iter(self._kept)))

    def find(self, caller: bytes, client_id: str) -> Any:
        """The block of a response of this caller's; None if there is none any more."""
        key = (caller, client_id)
        if key in self._kept and self._is_over(key):
            self._drop(key)
        kept = self._kept.get(key)
        return None if kept is None else json.loads(kept.block)

    def __len__(self) -> int:
        return len(self._kept)

    def _is_over(self, key: Key) -> bool:
        return self._kept[key].until <= self._clock()

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= _size(key, kept)


def _size(key: Key, kept: _Kept) -> int:
    return len(kept.block) + len(key[0]) + 4 * len(key[1]) + _OVERHEAD
