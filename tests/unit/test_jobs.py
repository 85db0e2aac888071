"""Jobs side by side: order, logs, what is kept, and how they are stopped. Real processes."""

import signal
import sys
import threading
from pathlib import Path

import pytest

from training.demo.jobs import Job, run_jobs
from training.run.checkpoints import RunStopped, StopOnSignal

WAITING = "import time; time.sleep(600)"
# Writes down that it was asked to end, as a training that saves does.
SAVING = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path(sys.argv[1]).write_text("saved")
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1] + ".up").write_text("")
time.sleep(600)
"""


def job(folder: Path, name: str, code: str, *words: str, after: str | None = None) -> Job:
    return Job(name, (sys.executable, "-c", code, *words), folder, after=after)


def appending(folder: Path, name: str, after: str | None = None) -> Job:
    code = "import sys; open(sys.argv[1], 'a').write(sys.argv[2] + ' ')"
    return job(folder, name, code, str(folder / "order"), name, after=after)


def test_a_job_waits_for_the_one_before_it_and_is_not_done_twice(tmp_path: Path) -> None:
    jobs = [appending(tmp_path, "second", after="first"), appending(tmp_path, "first")]
    run_jobs(jobs, slots=2, stop=StopOnSignal(1))
    run_jobs(jobs, slots=2, stop=StopOnSignal(1))
    assert (tmp_path / "order").read_text() == "first second "
    assert all(float(each.done.read_text()) >= 0 for each in jobs)


def test_slots_bound_how_many_run_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "path = sys.argv[1] + '/running-' + str(os.getpid())\n"
        "open(path, 'w'); time.sleep(0.3)\n"
        "found = [each for each in os.listdir(sys.argv[1]) if each.startswith('running-')]\n"
        "os.remove(path); print(len(found))"
    )
    jobs = [job(tmp_path, f"job{number}", code, str(tmp_path)) for number in range(4)]
    run_jobs(jobs, slots=2, stop=StopOnSignal(1))
    assert all(int((tmp_path / f"{each.name}.log").read_text()) <= 2 for each in jobs)


def test_a_job_that_fails_is_named_with_the_end_of_its_log_and_ends_the_others(
    tmp_path: Path,
) -> None:
    failing = job(tmp_path, "bad", "import sys; sys.exit('no such preset')")
    waiting = job(tmp_path, "slow", WAITING)
    with pytest.raises(RunStopped, match=r"(?s)failed, see .*bad\.log.*no such preset"):
        run_jobs([failing, waiting], slots=2, stop=StopOnSignal(1))
    assert not failing.done.exists()
    assert not waiting.done.exists()


def test_a_signal_is_passed_on_and_time_spent_is_remembered(tmp_path: Path) -> None:
    saved, stop = tmp_path / "saved", StopOnSignal(1)
    saving = job(tmp_path, "saving", SAVING, str(saved))

    def ask() -> None:
        while not saved.with_name("saved.up").exists():
            pass
        stop.signal = signal.SIGTERM

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(RunStopped, match="run the same command again"):
        run_jobs([saving], slots=1, stop=stop)
    asking.join()
    assert saved.read_text() == "saved"
    assert saving.spent.exists()
    assert not saving.done.exists()
