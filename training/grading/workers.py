"""Processes that compare formulas, each comparison with a limit on its own processor time.

The limit interrupts a comparison inside its worker, which stays warm (`stepgrpo_math.limits`). If
the kernel had to kill the worker, a warm spare replaces it. Time that a worker spends loading or
waiting for a core does not count.

Two rounds prevent hostile answers from delaying the others: first every comparison gets `QUICK`
seconds; then those that were too slow get the full limit, at most `CHANCES` per call and
`CHANCES_PER_GOLD` per gold.
"""

import multiprocessing
import signal
from collections import Counter
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import pebble
from tqdm import tqdm

from stepgrpo_math import (
    CpuTimeExceeded,
    UnparsableGold,
    compare_answers,
    prepare_process,
    run_with_cpu_limit,
)
from training.grading.lenient import lenient_reason

__all__ = ["GraderBroken", "GradingJob", "Workers", "chances"]

QUICK = 1.0
"""Seconds of processor time in the first round; a normal comparison takes a few hundredths."""
CHANCES = 8
CHANCES_PER_GOLD = 2
SPARES = 1  # additional warm workers
STALLED = 600.0  # seconds of wall time after which a worker that is neither busy nor done is killed
ATTEMPTS = 3  # a pool breaks if a worker is killed between two tasks; a new pool continues


class GraderBroken(RuntimeError):
    """The grading workers die before they can grade."""


@dataclass(frozen=True, slots=True)
class GradingJob:
    """A comparison for a worker: does the box, or otherwise the text, equal the gold?"""

    gold: str
    box: str | None
    text: str | None = None  # for the lenient reader


class Workers:
    """A pool of `count` processes and a spare one, started with the first job."""

    def __init__(self, count: int, seconds: float) -> None:
        self._count, self._seconds = count, seconds
        self._pool: Any = None

    def decide(self, jobs: Sequence[GradingJob]) -> dict[GradingJob, str]:
        """Return the reason of every job; raises GraderBroken if no worker can run."""
        wanted = list(dict.fromkeys(jobs))
        quick = min(QUICK, self._seconds)
        reasons = self._round(wanted, quick)
        slow = chances([job for job in wanted if reasons[job] == "timeout"])
        return reasons | (self._round(slow, self._seconds) if self._seconds > quick else {})

    def stop(self) -> None:
        """Stop the processes; a later job starts new ones."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def _round(self, jobs: Sequence[GradingJob], seconds: float) -> dict[GradingJob, str]:
        reasons: dict[GradingJob, str] = {}
        for _ in range(ATTEMPTS):
            if left := [job for job in jobs if job not in reasons]:
                reasons |= self._attempt(left, seconds)
        if len(reasons) < len(jobs):
            raise GraderBroken(
                f"grading workers died {ATTEMPTS} times before they could work; try "
                "`python -c 'import math_verify'`, and look for a lack of memory"
            )
        return reasons

    def _attempt(self, jobs: Sequence[GradingJob], seconds: float) -> dict[GradingJob, str]:
        """Return the reasons found; if the pool broke, only those before, and the pool is
        replaced."""
        if self._pool is None:
            self._pool = pebble.ProcessPool(
                self._count + SPARES,
                initializer=prepare_process,
                context=multiprocessing.get_context("spawn"),  # no threads or CUDA inherited
            )
        futures, reasons = {}, {}
        try:
            for job in jobs:
                futures[job] = self._pool.schedule(
                    _answer, args=(job, seconds), timeout=STALLED + seconds
                )
            for job in tqdm(futures, desc="Grading", leave=False, delay=5):
                reasons[job] = _reason(futures[job])
        except RuntimeError:  # pebble raises it for a broken pool, also in `schedule`
            self.stop()
        except BaseException:
            self.stop()  # interrupted: nobody will read the workers' results
            raise
        return reasons


def chances(slow: Sequence[GradingJob]) -> list[GradingJob]:
    """Return the slow jobs that get the full time."""
    per_gold: Counter[str] = Counter()
    chosen = []
    for job in slow:
        per_gold[job.gold] += 1
        if per_gold[job.gold] <= CHANCES_PER_GOLD:
            chosen.append(job)
    return chosen[:CHANCES]


def _reason(future: Any) -> str:
    try:
        reason: str = future.result()
    except TimeoutError:
        return "timeout"
    except pebble.ProcessExpired as error:
        return "timeout" if error.exitcode == -signal.SIGXCPU else "crashed"
    except BrokenProcessPool:
        raise
    except Exception as error:  # noqa: BLE001 - transfer to or from the worker failed
        return f"error: {type(error).__name__}"
    return reason


# The functions below run in the workers, which import this module: keep its imports light.


def _answer(job: GradingJob, seconds: float) -> str:
    try:
        return run_with_cpu_limit(seconds, lambda: _compared(job))
    except CpuTimeExceeded:
        return "timeout"
    except UnparsableGold:
        return "gold unparsed"
    except Exception as error:  # noqa: BLE001 - sympy raises anything; it may not even pickle
        return f"error: {type(error).__name__}"


def _compared(job: GradingJob) -> str:
    """Return the strict reason, or the lenient one for a job with a text."""
    if job.box is not None:
        found = compare_answers(job.gold, job.box)
        if job.text is None:
            return {"same": "equal", None: "over bounds"}.get(found) or str(found)
        if found in {"same", "unevaluated"}:
            return "equal"
    boxed = [] if job.box is None else [f"\\boxed{{{job.box}}}"]
    return lenient_reason(job.gold, [*boxed, *([job.text] if job.text else [])])
