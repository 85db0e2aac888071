"""Commands that run in parallel, each with its own log, and resume after an interruption."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from training.files import write_text
from training.run.checkpoints import RunStopped, StopOnSignal
from training.run.ports import free_port

__all__ = ["Job", "run_jobs"]

POLL_SECONDS = 0.5
TAIL = 1_500  # characters of a failed command's log that are shown

# One thread each: two threads that wait for each other on busy cores are slower than one.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


@dataclass(frozen=True, slots=True)
class Job:
    """A command with the files that record its state."""

    name: str
    command: tuple[str, ...]
    folder: Path
    """Folder of its log and of the files with its duration."""
    after: str | None = None
    """Name of a job that must be done first."""
    prepare: Callable[[], None] | None = None
    """Function to call before the command."""

    @property
    def done(self) -> Path:
        """Return the file that marks a finished job; it contains the total duration in seconds."""
        return self.folder / f"{self.name}.seconds"

    @property
    def spent(self) -> Path:
        """Return the file with the duration of interrupted attempts in seconds."""
        return self.folder / f"{self.name}.interrupted"


@dataclass(frozen=True, slots=True)
class _Running:
    job: Job
    process: "subprocess.Popen[bytes]"
    started: float

    def seconds(self) -> float:
        spent = self.job.spent
        before = float(spent.read_text(encoding="utf-8")) if spent.exists() else 0
        return time.monotonic() - self.started + before


def run_jobs(jobs: Sequence[Job], *, slots: int, stop: StopOnSignal) -> None:
    """Run the jobs that are not done, in order, at most `slots` in parallel.

    If `stop` got a signal or a command failed, the running commands are stopped. Raises RunStopped.
    """
    waiting = [job for job in jobs if not job.done.exists()]
    running: list[_Running] = []
    with tqdm(total=len(jobs), initial=len(jobs) - len(waiting), unit="job", smoothing=0) as bar:
        try:
            while waiting or running:
                _start(waiting, running, slots)
                bar.set_postfix_str(", ".join(each.job.name for each in running))
                time.sleep(POLL_SECONDS)
                bar.update(_collect(running))
                if stop.signal is not None:
                    raise RunStopped(f"{stop.signal.name}; run the same command again to continue")
        finally:
            _end(running)


def _start(waiting: list[Job], running: list[_Running], slots: int) -> None:
    """Fill the free slots with jobs whose predecessors are done."""
    unfinished = {job.name for job in waiting} | {each.job.name for each in running}
    for job in list(waiting):
        if len(running) < slots and job.after not in unfinished:
            waiting.remove(job)
            running.append(_launch(job))


def _launch(job: Job) -> _Running:
    job.folder.mkdir(parents=True, exist_ok=True)
    if job.prepare:
        job.prepare()
    with (job.folder / f"{job.name}.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **ENVIRONMENT, "MASTER_PORT": str(free_port())},
            start_new_session=True,  # ^C reaches only this process, which forwards it
        )
    return _Running(job, process, time.monotonic())


def _collect(running: list[_Running]) -> int:
    """Remove finished commands and return their number; raises RunStopped if one failed."""
    ended = [each for each in running if each.process.poll() is not None]
    for each in ended:
        running.remove(each)
        if each.process.returncode:
            log = each.job.folder / f"{each.job.name}.log"
            tail = log.read_bytes()[-TAIL:].decode(errors="replace")
            raise RunStopped(f"{' '.join(each.job.command)} failed, see {log}\n...{tail}")
        _write(each.job.done, each.seconds())
    return len(ended)


def _end(running: Iterable[_Running]) -> None:
    """Stop the running commands and wait, because training saves a checkpoint first."""
    for each in running:
        each.process.send_signal(signal.SIGTERM)
    for each in running:
        each.process.wait()
        _write(each.job.spent, each.seconds())


def _write(path: Path, seconds: float) -> None:
    write_text(path, f"{seconds:.0f}\n")
