"""Drain: running requests get a grace period, and then an error."""

import asyncio
import time
from http import HTTPStatus
from typing import Any

import pytest

from service.load.drain import Drain
from service.load.running import RunningRequests, client_ids


class Slots:
    """The part of `Admission` that a drain uses."""

    def __init__(self) -> None:
        self.in_use = 1
        self.closed = False


class Request:
    """A running request that releases its slot when it is aborted."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.errors: list[Any] = []

    def finish_thinking(self) -> int:
        raise AssertionError("nobody asked for the answer")

    def abort(self, error: Exception) -> None:
        self.errors.append(error)
        self._slots.in_use = 0


def drained(
    seconds: float, *, ends_after: float | None = None, hurry_after: float | None = None
) -> tuple[Request, Slots, float]:
    """Drain with one request that has two ids; return it, the slots and the seconds."""
    slots = Slots()
    running, request = RunningRequests(), Request(slots)
    drain = Drain(slots, running)  # type: ignore[arg-type]

    async def serve() -> float:
        drain.attach()
        loop = asyncio.get_running_loop()
        if ends_after is not None:
            loop.call_later(ends_after, setattr, slots, "in_use", 0)
        if hurry_after is not None:
            loop.call_later(hurry_after, drain.expire)
        started = time.monotonic()
        with running.track(b"me", client_ids("cmpl-1-0"), request):
            await asyncio.to_thread(drain.wait, seconds, lambda: False)
        return time.monotonic() - started

    return request, slots, asyncio.run(serve())


def test_what_ends_in_time_is_left_alone() -> None:
    request, slots, _ = drained(60, ends_after=0.05)
    assert request.errors == []
    assert slots.closed


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


@pytest.mark.parametrize("slots", [0, 1])
def test_a_lost_engine_or_an_empty_server_is_not_waited_for(slots: int) -> None:
    admission, running = Slots(), RunningRequests()
    admission.in_use = slots
    drain = Drain(admission, running)  # type: ignore[arg-type]
    drain.wait(20, lambda: slots > 0)
    assert admission.closed
    assert (drain.deadline <= time.monotonic()) == (slots > 0)
