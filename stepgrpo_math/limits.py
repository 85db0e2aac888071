"""Limits of a process that computes with sympy: processor time of a call, memory of all.

A limit of wall time would hit right answers on a busy machine, and ending the process costs its
successor a cold start. So a timer of processor time interrupts the call, and the process lives
on, warm; only a call that does not return from a single long operation is ended by the kernel,
`GRACE_S` later, together with its process.
"""

import logging
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

__all__ = ["TimeIsUp", "prepare_process", "within"]

GRACE_S = 1.0
AGAIN_S = 0.2  # the timer repeats, should somebody catch the interruption
MEMORY_BYTES = 4 << 30  # towers of powers fill memory faster than time
Result = TypeVar("Result")


class TimeIsUp(BaseException):
    """A call used up its processor time. No ``except Exception`` in sympy catches it."""


def prepare_process() -> None:
    """Set the limits of this process, and load and warm up what `compare_answers` needs."""
    from stepgrpo_math.formulas import warm_up  # noqa: PLC0415

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # dies in the middle of one long operation, too
    signal.signal(signal.SIGPROF, _interrupt)
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we set no alarm
    warm_up()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, MEMORY_BYTES)


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """Call with a limit of processor time, in a process that was prepared; raises TimeIsUp."""
    _limit(resource.RLIMIT_CPU, int(time.process_time() + seconds + GRACE_S) + 1)
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds, AGAIN_S)
        return call()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _interrupt(*_: object) -> None:
    raise TimeIsUp


def _limit(kind: int, soft: int) -> None:
    hard = resource.getrlimit(kind)[1]
    with suppress(ValueError):  # a lower limit is set already
        resource.setrlimit(kind, (soft, hard))
