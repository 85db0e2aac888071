"""Servers and trainers without import time: forks of one process that has imported everything.

A server imports torch and vLLM for ten seconds of processor time, and a trainer TRL as well. A run
of all tests starts some fifty of them. Here Python's own fork server imports once, and each command
is a fork of it that continues like ``python -m MODULE``: with its own session, environment and
output, as ``__main__``, and with an exit status by the same rules. The environment variables that
the imports themselves read are in `SHARED`. The README's own commands start without it (tests/e2e).
"""

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

__all__ = ["SHARED", "Forked", "Process", "popen", "run", "warm"]

ROOT = Path(__file__).parents[2]
SHARED = {
    "HF_HUB_OFFLINE": "1",
    # One core computes, the other serves: threads that wait for each other in turn would delay a
    # client's request to finish until its sequence is over.
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "INFO",  # importing TRL sets another
    "VLLM_NO_USAGE_STATS": "1",
}
READ_AT_START = ("LD_PRELOAD", "PYTHONPATH")
"""Variables read at interpreter start: a command that changes one is started without a fork."""
P = TypeVar("P", bound="Process")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.support.preloaded"])


def warm() -> None:
    """Begin the imports in the background."""
    with _environment(SHARED):
        forkserver.ensure_running()


def popen(command: Sequence[str], **options: Any) -> "Process":
    """Return a process like ``subprocess.Popen``, a fork if the command is ``python -m MODULE``."""
    wanted = options.get("env") or {}
    apart = any(wanted.get(name) not in (None, os.environ.get(name)) for name in READ_AT_START)
    if tuple(command[:2]) == (sys.executable, "-m") and not apart:
        return Forked(command[2], command[3:], **options)
    return subprocess.Popen(command, **options)


def run(
    command: Sequence[str], *, timeout: float | None = None, **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Replace ``subprocess.run(command, capture_output=True, text=True)``; raises as it does."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = popen(command, stdout=out, stderr=err, **options)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(list(command), status, out.read(), err.read())


class Process(Protocol):
    """The part of ``subprocess.Popen`` that tests use."""

    pid: int

    @property
    def returncode(self) -> Any: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...
    def kill(self) -> None: ...
    def communicate(self, *, timeout: float | None = None) -> tuple[Any, Any]: ...
    @property
    def stdout(self) -> IO[Any] | None: ...


@contextlib.contextmanager
def killed(process: P) -> Iterator[P]:
    """Kill the process at the end of the context."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Forked:
    """A process like ``subprocess.Popen``'s; ``stdout=PIPE`` is read as text."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        start_new_session: bool = False,
        text: bool = True,
    ) -> None:
        assert text
        self.args = [sys.executable, "-m", module, *arguments]
        self.stdout: IO[str] | None = None
        piped = stdout == subprocess.PIPE
        if piped:
            reading, writing = os.pipe()
            self.stdout = os.fdopen(reading, encoding="utf-8")
        out = writing if piped else _descriptor(stdout, 1)
        err = out if stderr == subprocess.STDOUT else _descriptor(stderr, 2)
        environment = dict(os.environ if env is None else env)
        self._process = _CONTEXT.Process(
            target=_become,
            args=(module, list(arguments), environment, str(cwd), start_new_session),
            kwargs={"out": _Inherited(out), "err": _Inherited(err)},
        )
        warm()
        self._process.start()
        if piped:
            os.close(writing)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, *, timeout: float | None = None) -> tuple[str, None]:
        """Return the rest of its output; raises TimeoutExpired if it does not end in time."""
        stdout, said = self.stdout, list[str]()
        if stdout is not None and not stdout.closed:
            reading = threading.Thread(target=lambda: said.append(stdout.read()), daemon=True)
            reading.start()
            reading.join(timeout)
        self.wait(timeout)
        if stdout is not None:
            stdout.close()
        return "".join(said), None

    def send_signal(self, number: int, /) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Inherited:
    """A file descriptor that is duplicated for the process."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.descriptor),)


def _received(copy: Any) -> int:
    return int(copy.detach())


def _descriptor(stream: int | IO[Any] | None, own: int) -> int:
    if stream is None:
        return own
    return stream if isinstance(stream, int) else stream.fileno()


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _become(
    module: str,
    arguments: list[str],
    environment: dict[str, str],
    cwd: str,
    own_session: bool,
    *,
    out: int,
    err: int,
) -> None:
    """Continue as ``python -m module arguments``; does not return."""
    if own_session:
        os.setsid()
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-m", *arguments]
    multiprocessing.current_process().name = "MainProcess"
    if module.startswith("vllm."):
        _fork_engines()
    os._exit(_status_of(module))


def _status_of(module: str) -> int:
    """Run the module and the interpreter's exit steps; return the exit status."""
    status = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _fork_engines() -> None:
    """Fork stock vLLM's engine, too: on CPUs it would be spawned, and import everything."""
    import vllm.v1.engine.utils as starting  # noqa: PLC0415

    starting.get_mp_context = lambda: multiprocessing.get_context("fork")
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
