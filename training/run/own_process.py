"""Runs the engine's part of a run in a process of its own: when that ends, so does its hold on the
device, and fine-tuning has all of the memory. In the trainer's process some would stay behind.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from training.run.checkpoints import STOPPING, RunStopped, StopOnSignal

__all__ = ["in_own_process"]

Stopping = Callable[[], bool]


def in_own_process(
    function: Callable[..., None],
    *args: Any,
    stop: StopOnSignal,
    remedy: str = "go on with --resume",
) -> None:
    """Call ``function(*args, stopping)`` in a new process and wait for its end.

    `stopping` is true once `stop` got a signal: the function should end soon; a second signal
    kills it. On a node of several processes the new one sees the device of its parent alone.
    Raises what it raised if that is RunStopped, and RunStopped if it died; other errors are
    printed with their traceback by the process.
    """
    context = multiprocessing.get_context("spawn")  # CUDA and threads do not survive a fork
    asked, (fault, to_parent) = context.Event(), context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(function, args, asked, to_parent))
    with _environment(_surroundings(os.environ)):
        process.start()
    try:
        while process.is_alive():
            process.join(0.5)
            if stop.signal is not None:
                asked.set()
    finally:
        process.kill()
        process.join()
    if fault.poll():
        raise RunStopped(fault.recv())
    if process.exitcode:
        raise RunStopped(
            f"the process of the engine ended with status {process.exitcode}; see above, or look "
            f"for a lack of memory; {remedy}"
        )


def _run(function: Callable[..., None], args: tuple[Any, ...], asked: Any, to_parent: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)  # the parent asks
    try:
        function(*args, asked.is_set)
    except RunStopped as error:
        to_parent.send(str(error))


def _end_with_parent() -> None:
    """A run that is killed must not leave an engine on the device."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _surroundings(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Changes of the environment: a process that stands alone, with its parent's device."""
    changes: dict[str, str | None] = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    if rank := environment.get("LOCAL_RANK"):
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        device = visible.split(",")[int(rank)] if visible else rank
        changes |= {"CUDA_VISIBLE_DEVICES": device}
        changes |= dict.fromkeys(("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return changes


@contextlib.contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
