"""Running requests, and clients that want their answer now (the route is in `service.http.routes`).

The id is the one in every chunk of the stream. Only the API key that made the request can end its
thinking; to any other it does not exist.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Protocol

from service.records.reasons import OBSTACLES, Abstained

__all__ = ["CannotFinish", "RunningRequest", "RunningRequests", "check_closable", "client_ids"]


class CannotFinish(Exception):
    """The thinking of a request cannot be closed from outside; says why and what would help."""


def check_closable(obstacle: Abstained | None) -> None:
    """Raises CannotFinish where that stands in the way."""
    if obstacle:
        raise CannotFinish(f"Its thinking cannot be closed: {OBSTACLES[obstacle]}.")


class RunningRequest(Protocol):
    """A running request to the engine."""

    def finish_thinking(self) -> int:
        """Close what thinks, soon; how many sequences that is. Raises CannotFinish."""

    def abort(self, error: Exception) -> None:
        """End all of it, soon, with this error."""


class RunningRequests:
    """The running requests by who made them and the id their client knows.

    Ids may come from clients (X-Request-Id) and repeat: all of one caller's are meant then.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[bytes, str], list[RunningRequest]] = {}

    @contextlib.contextmanager
    def track(self, caller: bytes, request_id: str, request: RunningRequest) -> Iterator[None]:
        """Within it, `request` can be asked to finish."""
        keys = [(caller, each) for each in client_ids(request_id)]
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
        """How many sequences close their thinking; None if this caller has no such request.

        Raises CannotFinish where none of its parts can.
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
        """End every running request with this error."""
        requests = [each for several in self._running.values() for each in several]
        for request in {id(each): each for each in requests}.values():  # some have two ids
            request.abort(error)

    def __len__(self) -> int:
        return len(self._running)


def client_ids(request_id: str) -> set[str]:
    """The id that the client sees. vLLM numbers the engine's requests of one HTTP request."""
    numbered = re.fullmatch(r"(cmpl-.+)-\d+|(.+)_\d+", request_id, re.DOTALL)
    return {request_id} | ({numbered[1] or numbered[2]} if numbered else set())
