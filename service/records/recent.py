"""Cache of the ``stepgrpo`` blocks of recent responses, by response id.

Many SDKs drop unknown fields from streams, but all keep the id. A response's block, usage, and
timeline are kept for a few minutes and are visible only to the API key that made the request.
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from service.records.log_line import timeline_events
from service.records.sequence import RequestContext

__all__ = ["KEPT_SECONDS", "MOST_BYTES", "RecentResponses", "kept_response"]

KEPT_SECONDS = 300.0
MOST_BYTES = 8 * 1024 * 1024
"""Limit on the size of all blocks, ids and bookkeeping; the oldest are evicted first."""
_OVERHEAD = 512  # bytes of Python objects per entry

Key = tuple[bytes, str]


@dataclass(frozen=True, slots=True)
class _Kept:
    response: bytes
    """What is kept of the response, as JSON."""
    until: float
    """Expiry by the cache's clock, in seconds."""


class RecentResponses:
    """The cache. Used from one event loop, without locks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._bytes = 0

    def keep(self, caller: bytes, ids: Iterable[str], response: Mapping[str, Any]) -> None:
        """Store a response under all its `ids`, replacing earlier responses with these ids."""
        kept = _Kept(json.dumps(response).encode(), self._clock() + KEPT_SECONDS)
        for each in ids:
            self._drop((caller, each))
            self._kept[caller, each] = kept
            self._bytes += _size((caller, each), kept)
        while self._kept and (self._bytes > MOST_BYTES or self._is_expired(next(iter(self._kept)))):
            self._drop(next(iter(self._kept)))

    def find(self, caller: bytes, client_id: str) -> Any:
        """Return a response that this caller made, or None if it is unknown or expired."""
        key = (caller, client_id)
        if key in self._kept and self._is_expired(key):
            self._drop(key)
        kept = self._kept.get(key)
        return None if kept is None else json.loads(kept.response)

    def latest(self, caller: bytes, count: int) -> list[Any]:
        """Return the last `count` responses that this caller made, the newest first."""
        found: dict[int, _Kept] = {}  # by identity: a response has several ids
        for key in reversed(self._kept):
            if self._is_expired(key) or len(found) == count:
                break
            if key[0] == caller:
                found.setdefault(id(self._kept[key]), self._kept[key])
        return [json.loads(each.response) for each in found.values()]

    def __len__(self) -> int:
        return len(self._kept)

    def _is_expired(self, key: Key) -> bool:
        return self._kept[key].until <= self._clock()

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= _size(key, kept)


def kept_response(context: RequestContext) -> dict[str, Any] | None:
    """Return what is kept of a response that ends; None if there is no block."""
    block = context.as_block()
    if block is None:
        return None
    timeline = [
        {"index": record.choice, **event}
        for record in context.sequences
        if record.timeline.ended is not None
        for event in timeline_events(record, record.timeline)
    ]
    return {
        "id": min(context.ids, key=len),  # vLLM appends numbers to the others
        "created": int(time.time()),
        "model": context.sequences[0].model_name,
        "usage": context.usage(),
        "stepgrpo": block,
        "timeline": timeline,
    }


def _size(key: Key, kept: _Kept) -> int:
    return len(kept.response) + len(key[0]) + 4 * len(key[1]) + _OVERHEAD
