"""Cache of the ``stepgrpo`` blocks of recent responses, by response id.

Many SDKs drop unknown fields from streams, but all keep the id. A block is kept for a few minutes
and is visible only to the API key that made the request.
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
"""Limit on the size of all blocks, ids and bookkeeping; the oldest are evicted first."""
_OVERHEAD = 512  # bytes of Python objects per entry

Key = tuple[bytes, str]


@dataclass(frozen=True, slots=True)
class _Kept:
    block: bytes
    """The block as JSON."""
    until: float
    """Expiry by the cache's clock, in seconds."""


class RecentResponses:
    """The cache. Used from one event loop, without locks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._bytes = 0

    def keep(self, caller: bytes, ids: Iterable[str], block: Mapping[str, Any]) -> None:
        """Store a response's block under all its `ids`, replacing earlier blocks of these ids."""
        kept = _Kept(json.dumps(block).encode(), self._clock() + KEPT_SECONDS)
        for each in ids:
            self._drop((caller, each))
            self._kept[caller, each] = kept
            self._bytes += _size((caller, each), kept)
        while self._kept and (self._bytes > MOST_BYTES or self._is_expired(next(iter(self._kept)))):
            self._drop(next(iter(self._kept)))

    def find(self, caller: bytes, client_id: str) -> Any:
        """Return the block of a response that this caller made, or None if it is unknown or
        expired."""
        key = (caller, client_id)
        if key in self._kept and self._is_expired(key):
            self._drop(key)
        kept = self._kept.get(key)
        return None if kept is None else json.loads(kept.block)

    def __len__(self) -> int:
        return len(self._kept)

    def _is_expired(self, key: Key) -> bool:
        return self._kept[key].until <= self._clock()

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= _size(key, kept)


def _size(key: Key, kept: _Kept) -> int:
    return len(kept.block) + len(key[0]) + 4 * len(key[1]) + _OVERHEAD
