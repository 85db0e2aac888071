"""Graceful shutdown: admitted requests get a grace period, and then an error.

A request that exceeds the grace period ends with an error (503, may be retried elsewhere); a stream
gets it after its usage chunk. Otherwise its client would see a broken connection.
"""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus

from vllm.exceptions import GracefulHTTPError

from service.load.admission import Admission
from service.load.running import RunningRequests

__all__ = ["Drain"]

ABORT_SECONDS = 5.0  # for the engine to confirm aborted requests
POLL_SECONDS = 0.02


class Drain:
    """Waits for admitted requests up to a deadline, then aborts them."""

    def __init__(self, admission: Admission, running: RunningRequests) -> None:
        self._admission = admission
        self._running = running
        self._loop: asyncio.AbstractEventLoop | None = None
        self.deadline = 0.0
        """End of the grace period, by ``time.monotonic``."""

    def attach(self) -> None:
        """Attach to the running event loop, in which requests run."""
        self._loop = asyncio.get_running_loop()

    def wait(self, seconds: float, lost: Callable[[], bool]) -> None:
        """Refuse new requests and wait for running ones for up to `seconds`, unless the engine is
        lost. Blocks; call it in a thread of its own."""
        self._admission.closed = True
        self.deadline = time.monotonic() + seconds
        self._wait_until(lambda: lost() or time.monotonic() >= self.deadline)
        if lost():
            self.expire()
        elif self._loop is not None and self._admission.in_use:
            self._abort(self._loop, lost)

    def expire(self) -> None:
        """End the grace period now."""
        self.deadline = min(self.deadline, time.monotonic())

    def _abort(self, loop: asyncio.AbstractEventLoop, lost: Callable[[], bool]) -> None:
        loop.call_soon_threadsafe(self._running.abort, _error())
        deadline = time.monotonic() + ABORT_SECONDS
        self._wait_until(lambda: lost() or time.monotonic() >= deadline)

    def _wait_until(self, done: Callable[[], bool]) -> None:
        while self._admission.in_use and not done():
            time.sleep(POLL_SECONDS)


def _error() -> GracefulHTTPError:
    return GracefulHTTPError(
        "The server is shutting down, and the grace period for running requests is over. "
        "Please retry on a different instance.",
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
