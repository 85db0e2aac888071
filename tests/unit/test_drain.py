"""The end of a server: who is waited for, how long, and what becomes of the rest."""

import asyncio
import time
from http import HTTPStatus
from typing import Any

import pytest

from service.load.drain import Drain
from service.load.running import RunningRequests, client_ids


class Seats:
    """Admission, as far as a drain asks it."""

    def __init__(self) -> None:
        self.in_use = 1
        self.closed = False


class Request:
    """A running request; it gives its seat back when it is cut."""

    def __init__(self, seats: Seats) -> None:
        self._seats = seats
        self.errors: list[Any] = []

    def finish_thinking(self) -> int:
        raise AssertionError("nobody asked for the answer")

    def abort(self, error: Exception) -> None:
        self.errors.append(error)
        self._seats.in_use = 0


def drained(
    seconds: float, *, ends_after: float | None = None, hurry_after: float | None = None
) -> tuple[Request, Seats, float]:
    """Drain with one request that runs under two ids; what became of it, and the seconds."""
    seats = Seats()
    running, request = RunningRequests(), Request(seats)
    drain = Drain(seats, running)  # type: ignore[arg-type]

    async def serve() -> float:
        drain.attach()
        loop = asyncio.get_running_loop()
        if ends_after is not None:
            loop.call_later(ends_after, setattr, seats, "in_use", 0)
        if hurry_after is not None:
            loop.call_later(hurry_after, drain.expire)
        started = time.monotonic()
        with running.track(b"me", client_ids("cmpl-1-0"), request):
            await asyncio.to_thread(drain.wait, seconds, lambda: False)
        return time.monotonic() - started

    return request, seats, asyncio.run(serve())


def test_what_ends_in_time_is_left_alone() -> None:
    request, seats, _ = drained(60, ends_after=0.05)
    assert request.errors == []
    assert seats.closed


def test_f7_what_does_not_end_in_time_is_told_so_once() -> None:
    request, _, seconds = drained(0.2)
    (error,) = request.errors
    assert error.http_status == HTTPStatus.SERVICE_UNAVAILABLE
    assert "shutting down" in error.message
    assert seconds >= 0.2


def test_without_any_grace_all_are_told_at_once() -> None:
    assert len(drained(0)[0].errors) == 1


def test_f7_a_drain_that_is_hurried_ends_now() -> None:
    request, _, seconds = drained(20, hurry_after=0.05)
    assert len(request.errors) == 1
    assert seconds < 20


@pytest.mark.parametrize("seats", [0, 1])
def test_a_lost_engine_or_an_empty_server_is_not_waited_for(seats: int) -> None:
    admission, running = Seats(), RunningRequests()
    admission.in_use = seats
    drain = Drain(admission, running)  # type: ignore[arg-type]
    drain.wait(20, lambda: seats > 0)
    assert admission.closed
    assert (drain.deadline <= time.monotonic()) == (seats > 0)
