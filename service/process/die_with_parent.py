"""Ends the engine's processes together with the server, even if the server is killed.

A killed server cannot stop its engine, which would keep the device. Linux kills a process when its
parent dies if the process requests it (prctl(2), PR_SET_PDEATHSIG), so every process that vLLM
starts is made to do that first.
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

from service.process.sampler import keep_logprobs_apart

__all__ = ["at_fork", "end_engine_with_server"]

_PR_SET_PDEATHSIG = 1

# vLLM's functions, after they are replaced.
_originals: dict[str, Callable[..., None]] = {}
# Called first in a forked process; a spawned process has none.
_fork_hooks: list[Callable[[], None]] = []


def end_engine_with_server() -> None:
    """Make every engine process that starts from now on end with its parent.

    vLLM has no hook for this, so the entry functions of its processes are replaced.
    """
    if not _originals:
        _originals["engine"] = EngineCoreProc.run_engine_core
        _originals["coordinator"] = DPCoordinatorProc.run_coordinator
        _originals["worker"] = WorkerProc.worker_main
        EngineCoreProc.run_engine_core = staticmethod(run_engine_core)
        DPCoordinatorProc.run_coordinator = staticmethod(run_coordinator)
        WorkerProc.worker_main = staticmethod(worker_main)


@contextlib.contextmanager
def at_fork(hook: Callable[[], None]) -> Iterator[None]:
    """Call `hook` first in every engine process that is forked within this context."""
    _fork_hooks.append(hook)
    try:
        yield
    finally:
        _fork_hooks.remove(hook)


def run_engine_core(*args: Any, **options: Any) -> None:
    """Entry function of an engine core process."""
    _run("engine", args, options)


def run_coordinator(*args: Any, **options: Any) -> None:
    """Entry function of the data-parallel coordinator."""
    _run("coordinator", args, options)


def worker_main(*args: Any, **options: Any) -> None:
    """Entry function of a worker."""
    _run("worker", args, options)


def _run(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    # Ctrl-C in a terminal signals the whole process group. The engine leaves it, because it must
    # not stop before the server has drained.
    os.setpgid(0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # only the server handles it
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)  # the parent is already gone
    for hook in _fork_hooks:
        hook()
    end_engine_with_server()  # for processes that this one spawns
    keep_logprobs_apart()
    _originals[name](*args, **options)
