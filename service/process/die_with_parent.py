"""Processes of the engine end with the server, however it ends.

vLLM's server stops its engine when it can. When it is killed it cannot, and the engine would keep
the device. Linux ends a process together with its parent if the process asks for it (prctl(2),
PR_SET_PDEATHSIG), so whatever vLLM starts is made to ask first.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from vllm.v1.engine.coordinator import DPCoordinatorProc
from vllm.v1.engine.core import EngineCoreProc
from vllm.v1.executor.multiproc_executor import WorkerProc

__all__ = ["at_fork", "end_engine_with_server"]

_PR_SET_PDEATHSIG = 1

# vLLM's own, once replaced.
_own: dict[str, Callable[..., None]] = {}
# What a forked process begins with; a spawned one finds none.
_first: list[Callable[[], None]] = []


def end_engine_with_server() -> None:
    """Have every engine process that is started from now on end with the one that starts it.

    vLLM offers no hook for it, so the functions that its processes run are replaced.
    """
    if not _own:
        _own["engine"] = EngineCoreProc.run_engine_core
        _own["coordinator"] = DPCoordinatorProc.run_coordinator
        _own["worker"] = WorkerProc.worker_main
        EngineCoreProc.run_engine_core = staticmethod(run_engine_core)
        DPCoordinatorProc.run_coordinator = staticmethod(run_coordinator)
        WorkerProc.worker_main = staticmethod(worker_main)


@contextlib.contextmanager
def at_fork(begin: Callable[[], None]) -> Iterator[None]:
    """Have engine processes that are forked meanwhile begin with `begin`."""
    _first.append(begin)
    try:
        yield
    finally:
        _first.remove(begin)


def run_engine_core(*args: Any, **options: Any) -> None:
    """What a process of the engine runs."""
    _run_tied("engine", args, options)


def run_coordinator(*args: Any, **options: Any) -> None:
    """What the process runs that balances data-parallel engines."""
    _run_tied("coordinator", args, options)


def worker_main(*args: Any, **options: Any) -> None:
    """What an engine's worker runs."""
    _run_tied("worker", args, options)


def _run_tied(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    # A terminal's Ctrl-C goes to all of a process group. The engine is not to drain before the
    # server has, so it leaves the group.
    os.setpgid(0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the server's files
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)  # it had ended before
    for begin in _first:
        begin()
    end_engine_with_server()  # a spawned process begins without
    _own[name](*args, **options)
