"""The end of a server: admitted requests get their time, and those that need more are told so.

A request whose time is over ends with an error (503: it may be tried elsewhere), in a stream after
the usage that it asked for. Without this its client would see a connection that breaks.
"""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus

from vllm.exceptions import GracefulHTTPError

from service.load.admission import Admission
from service.load.running import RunningRequests

__all__ = ["Drain"]

LAST_SECONDS = 5.0  # for the engine to confirm what is aborted
POLL_SECONDS = 0.02


class Drain:
    """Waits for what was admitted, for at most so long; then ends it."""

    def __init__(self, admission: Admission, running: RunningRequests) -> None:
        self._admission = admission
        self._running = running
        self._loop: asyncio.AbstractEventLoop | None = None
        self.deadline = 0.0
        """When it ends at the latest, by ``time.monotonic``."""

    def attach(self) -> None:
        """Called in the event loop in which requests run."""
        self._loop = asyncio.get_running_loop()

    def wait(self, seconds: float, lost: Callable[[], bool]) -> None:
        """Refuse what is new and let the rest end, until the engine is lost. In a thread of its
        own, for it blocks."""
        self._admission.closed = True
        self.deadline = time.monotonic() + seconds
        self._until(lambda: lost() or time.monotonic() >= self.deadline)
        if lost():
            self.expire()
        elif self._loop is not None and self._admission.in_use:
            self._cut(self._loop, lost)

    def expire(self) -> None:
        """End it now."""
        self.deadline = min(self.deadline, time.monotonic())

    def _cut(self, loop: asyncio.AbstractEventLoop, lost: Callable[[], bool]) -> None:
        loop.call_soon_threadsafe(self._running.abort, _error())
        last = time.monotonic() + LAST_SECONDS
        self._until(lambda: lost() or time.monotonic() >= last)

    def _until(self, over: Callable[[], bool]) -> None:
        while self._admission.in_use and not over():
            time.sleep(POLL_SECONDS)


def _error() -> GracefulHTTPError:
    return GracefulHTTPError(
        "The server is shutting down, and the time that running requests had is over. "
        "Please try again on a different instance.",
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
