"""Processes of a run: decisions of the main process, and functions run in a subprocess."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from training.run.checkpoints import STOP_SIGNALS, RunStopped, StopOnSignal

__all__ = ["on_main", "run_in_subprocess"]

T = TypeVar("T")


def on_main(function: Callable[[], T]) -> T:
    """Call `function` on the main process and return its result on all; every process calls this.

    An exception ends the main process, and with it the others.
    """
    box = [function() if PartialState().is_main_process else None]
    broadcast_object_list(box)
    result: T = box[0]  # type: ignore[assignment]
    return result


def run_in_subprocess(
    function: Callable[..., None],
    *args: Any,
    stop: StopOnSignal,
    remedy: str = "continue with --resume",
) -> None:
    """Call ``function(*args, stopping)`` in a new process and wait for its end.

    The subprocess holds the engine: its exit frees all memory of the device for fine-tuning, which
    shutting down an engine in the trainer's process does not. ``stopping()`` is true once `stop`
    got a signal, and the function should return soon; a second signal kills it. The subprocess sees
    only its parent's device. Raises RunStopped if the function raised it or the process died; the
    process prints other errors with their traceback.
    """
    context = multiprocessing.get_context("spawn")  # CUDA and threads do not work after a fork
    stopping, (fault, to_parent) = context.Event(), context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(function, args, stopping, to_parent))
    with _environment(_environment_changes(os.environ)):
        process.start()
    try:
        while process.is_alive():
            process.join(0.5)
            if stop.signal is not None:
                stopping.set()
    finally:
        process.kill()
        process.join()
    if fault.poll():
        raise RunStopped(fault.recv())
    if process.exitcode:
        raise RunStopped(
            f"the process of the engine ended with status {process.exitcode}; see the output "
            f"above, or check for a lack of memory; {remedy}"
        )


def _run(
    function: Callable[..., None], args: tuple[Any, ...], stopping: Any, to_parent: Any
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # the parent sets `stopping`
    try:
        function(*args, stopping.is_set)
    except RunStopped as error:
        to_parent.send(str(error))


def _end_with_parent() -> None:
    """Exit with the parent, so that a killed run leaves no engine on the device."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _environment_changes(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return changes of the environment: no distributed group, and the parent's device only."""
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
