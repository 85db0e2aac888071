"""Limits of a process that computes with sympy: CPU time per call, memory of the process.

A limit on wall time would reject correct answers on a busy machine, and a new process would have a
cold start. So a CPU timer interrupts the call and the process stays warm. Only if a single long
operation does not return, the kernel ends the process `GRACE_S` later.
"""

import logging
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

__all__ = ["CpuTimeExceeded", "prepare_process", "run_with_cpu_limit"]

GRACE_S = 1.0
REPEAT_S = 0.2  # interval of the timer, in case the exception is caught
MEMORY_BYTES = 4 << 30  # nested powers exhaust memory before time
Result = TypeVar("Result")


class CpuTimeExceeded(BaseException):
    """A call exceeded its CPU time; no ``except Exception`` in sympy catches it."""


def prepare_process() -> None:
    """Set the limits of this process, and load the modules that `compare_answers` needs."""
    from stepgrpo_math.formulas import warm_up  # noqa: PLC0415

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # also ends a single long operation
    signal.signal(signal.SIGPROF, _interrupt)
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that no timeout is set
    warm_up()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, MEMORY_BYTES)


def run_with_cpu_limit(seconds: float, call: Callable[[], Result]) -> Result:
    """Call with a limit of CPU time, after `prepare_process`; raises CpuTimeExceeded."""
    _limit(resource.RLIMIT_CPU, int(time.process_time() + seconds + GRACE_S) + 1)
    try:
        try:
            signal.setitimer(signal.ITIMER_PROF, seconds, REPEAT_S)
            return call()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except CpuTimeExceeded:
        signal.setitimer(signal.ITIMER_PROF, 0)  # the signal may have come in the line above
        raise


def _interrupt(*_: object) -> None:
    raise CpuTimeExceeded


def _limit(kind: int, soft: int) -> None:
    hard = resource.getrlimit(kind)[1]
    with suppress(ValueError):  # a lower limit is set already
        resource.setrlimit(kind, (soft, hard))
