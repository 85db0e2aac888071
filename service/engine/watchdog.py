"""Interrupts a policy that does not return, because it would block every request.

Decisions run in the event loop's thread and take microseconds. A second thread checks regularly
whether one has run for too long, and then sends the first thread a signal whose handler raises, but
only inside a decision. Code that never returns to the Python interpreter (a regular expression of
`re`) cannot be interrupted.
"""

import functools
import itertools
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from stepgrpo_core.policies import Verdict

__all__ = ["DECISION_SECONDS", "PolicyTimeout", "guarded"]

DECISION_SECONDS = 2.0
_MAIN = threading.main_thread().ident
_SIGNAL = signal.SIGVTALRM  # free: nothing else uses the virtual timer


class PolicyTimeout(Exception):
    """A decision took longer than `DECISION_SECONDS`."""


class _Watch:
    """Watches the decisions of the main thread."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._running = 0  # number of the current decision; 0: none
        self._overdue = 0
        self._thread_id = threading.get_ident()
        signal.signal(_SIGNAL, self._interrupt)
        threading.Thread(target=self._look, name="policy-watch", daemon=True).start()

    def run(self, decide: Callable[[], Verdict]) -> Verdict:
        """Run a decision; raises PolicyTimeout if it takes too long."""
        try:
            self._running = next(self._numbers)
            return decide()
        finally:
            self._running = 0

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        if self._running and self._running == self._overdue:
            raise PolicyTimeout(f"no verdict within {DECISION_SECONDS:g} s")

    def _look(self) -> None:
        seen, since = 0, 0.0
        while True:
            time.sleep(DECISION_SECONDS / 4)
            if self._running != seen:
                seen, since = self._running, time.monotonic()
            elif seen and time.monotonic() - since >= DECISION_SECONDS:
                self._overdue = seen
                signal.pthread_kill(self._thread_id, _SIGNAL)


@functools.cache
def _watch() -> _Watch:
    return _Watch()


def guarded(decide: Callable[[], Verdict]) -> Verdict:
    """Run a policy's decision; raises PolicyTimeout if it takes more than `DECISION_SECONDS`.

    Only the main thread can be interrupted; in other threads there is no limit.
    """
    if threading.get_ident() != _MAIN:
        return decide()
    return _watch().run(decide)
