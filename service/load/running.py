"""Registry of running requests, for ``finish-thinking`` (see `service.http.routes`) and drain.

Requests are found by the id in every chunk of their stream, and only with the API key that sent
them; other keys get 404.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from service.records.log_line import response_id
from service.records.reasons import OBSTACLES, Abstained

__all__ = ["CannotFinish", "RunningRequest", "RunningRequests", "check_closable", "client_ids"]


class CannotFinish(Exception):
    """The thinking of a request cannot be ended on demand. The message says why, with a hint."""


def check_closable(obstacle: Abstained | None) -> None:
    """Raise CannotFinish if there is an obstacle."""
    if obstacle:
        raise CannotFinish(f"Its thinking cannot be closed: {OBSTACLES[obstacle]}.")


class RunningRequest(Protocol):
    """A running request of the engine."""

    def finish_thinking(self) -> int:
        """End the thinking soon; return the number of sequences that think. Raises CannotFinish."""

    def abort(self, error: Exception) -> None:
        """End all of its sequences soon with `error`."""


class RunningRequests:
    """The running requests by caller and by the id that their client sees.

    Clients may choose ids (X-Request-Id) and reuse them: an id means all requests of its caller
    with it.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[bytes, str], list[RunningRequest]] = {}

    @contextlib.contextmanager
    def track(self, caller: bytes, ids: Iterable[str], request: RunningRequest) -> Iterator[None]:
        """Register `request` under its `ids` while the context is active."""
        keys = [(caller, each) for each in ids]
        for key in keys:
            self._running.setdefault(key, []).append(request)
        try:
            yield
        finally:
            for key in keys:
                self._running[key].remove(request)
                if not self._running[key]:
                    del self._running[key]

    def finish(self, caller: bytes, client_id: str) -> int | None:
        """End the thinking of a request; return the number of its sequences that think.

        Returns None if this caller has no such request. Raises CannotFinish if no part of it can.
        """
        requests = self._running.get((caller, client_id))
        if requests is None:
            return None
        closed, refusals = 0, list[CannotFinish]()
        for request in requests:
            try:
                closed += request.finish_thinking()
            except CannotFinish as refusal:
                refusals.append(refusal)
        if len(refusals) == len(requests):
            raise refusals[0]
        return closed

    def abort(self, error: Exception) -> None:
        """End every running request with `error`."""
        requests = [each for several in self._running.values() for each in several]
        for request in {id(each): each for each in requests}.values():  # a request may have two ids
            request.abort(error)

    def __len__(self) -> int:
        return len(self._running)


def client_ids(request_id: str, *, batch: bool = False) -> set[str]:
    """Return the ids by which a client may name an engine request: its own and the response's."""
    return {request_id, response_id(request_id, batch=batch)}
