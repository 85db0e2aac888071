r"""Grades answers: cheap comparisons here, mathematics in workers with a hard time limit.

Strict, as in training: only the last box after ``</think>`` counts. Thinking that never closed
and a missing box are wrong without a look at the answer. A gold of one letter is multiple choice
and compared as a letter; equal spelling is equal, and two integers are compared as such; the rest
is decided by math-verify.

math-verify reads hostile LaTeX with sympy, which can compute for ever, and its own limit is an
alarm signal, which works in main threads only. So it runs without a limit in worker processes
that are killed after `seconds`. What could not be decided is None with a reason, never wrong:
a reward of 0 would punish the policy for the grader's failure.

What math-verify takes for equal by design: 50 and 50\%, x=5 and 5, {1,2} and (1,2). Its `verify`
is not symmetric; the gold comes first.
"""

import logging
import multiprocessing
import re
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import pebble
from tqdm import tqdm

from stepgrpo_core import InvalidSetting, answer_text, final_answer, last_box

__all__ = ["Grader", "GraderBroken", "Verdict", "count_unscored"]

CORRECT = {
    "exact": True,
    "equal": True,
    "different": False,
    "no box": False,
    "unclosed thinking": False,
}
"""What a reason says about the answer; any other reason leaves it unscored."""

ATTEMPTS = 3  # a pool breaks when a worker is killed between two tasks; the next pool goes on
MEMORY_BYTES = 4 << 30  # of one worker: towers of powers fill memory faster than time
CHOICES = tuple("ABCDEFGHIJ")  # what a lenient reader looks for; MMLU-Pro has the most, ten

_CHOICE = re.compile(r"\(?([A-Z])\)?")
_BRACKETED = re.compile(r"\\[A-Za-z]+|[^\w\s.,:]")  # what hides the letter of **(B)** or \text{B}
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_ENVIRONMENT = re.compile(r"(?<!\\)(?:\$|\\\(|\\\[)")


class GraderBroken(RuntimeError):
    """The grading workers die before they can grade."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the grader says of one completion."""

    correct: bool | None
    """None: unscored; leave it out of every mean and baseline."""
    formatted: bool
    """Whether a box stands after the thinking, whatever is in it."""
    reason: str
    """A key of `CORRECT`, or why it is unscored: "timeout", "crashed", "gold unparsed" or
    "error: " and the exception's name."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A question to a worker: does the box, or else the text, equal the gold?"""

    gold: str
    box: str | None
    text: str | None = None  # for the lenient reader


class Grader:
    """Grades completions against gold answers; a context manager that ends its workers.

    `seconds` limits each comparison and `workers` is the number of processes, which start with
    the first comparison that needs one. `unscored` counts reasons over all calls. Any thread
    may call; calls take turns.
    """

    def __init__(self, *, seconds: float = 5.0, workers: int = 2) -> None:
        if not 0 < seconds < float("inf"):
            raise InvalidSetting("seconds", seconds, "use a positive number of seconds")
        if workers < 1:
            raise InvalidSetting("workers", workers, "use at least one process")
        self.seconds = seconds
        self.workers = workers
        self.unscored: Counter[str] = Counter()
        self._pool: Any = None
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; a later `grade` starts new ones."""
        with self._turn:
            self._stop()

    def grade(
        self,
        completions: Sequence[str],
        golds: Sequence[str],
        *,
        thinking_open: bool = False,
        lenient: bool = False,
    ) -> list[Verdict]:
        """One verdict per completion, in order; shapes (N,), (N,) -> (N,).

        `thinking_open` says that the prompts ended in ``<think>``. `lenient` also accepts what
        math-verify finds in the text after the thinking, or in all of it when that never closed,
        down to its last number: a second column for evaluation, never a reward.

        Raises ValueError when the lengths differ and GraderBroken when no worker can run.
        """
        if len(completions) != len(golds):
            sizes = f"{len(completions)} completions and {len(golds)} golds"
            raise ValueError(f"{sizes} cannot be graded; pass one gold per completion")
        asked = [
            _asked(completion, gold, thinking_open=thinking_open, lenient=lenient)
            for completion, gold in zip(completions, golds, strict=True)
        ]
        reasons = self._decide([each for each in asked if isinstance(each, _Job)])
        found = [reasons[each] if isinstance(each, _Job) else each for each in asked]
        verdicts = [
            Verdict(CORRECT.get(reason), _has_box(completion, thinking_open), reason)
            for reason, completion in zip(found, completions, strict=True)
        ]
        self.unscored += count_unscored(verdicts)
        return verdicts

    def _decide(self, jobs: Sequence[_Job]) -> dict[_Job, str]:
        """The reason of every job. Samples of one prompt repeat answers: each is asked once."""
        reasons: dict[_Job, str] = {}
        with self._turn:
            for _ in range(ATTEMPTS):
                if left := [job for job in dict.fromkeys(jobs) if job not in reasons]:
                    reasons |= self._attempt(left)
        if len(reasons) < len(set(jobs)):
            raise GraderBroken(
                f"grading workers died {ATTEMPTS} times before they could work; try "
                "`python -c 'import math_verify'`, and look for a lack of memory"
            )
        return reasons

    def _attempt(self, jobs: Sequence[_Job]) -> dict[_Job, str]:
        """The reasons found before the pool broke, if it did: then it is replaced."""
        if self._pool is None:
            self._pool = pebble.ProcessPool(
                self.workers,
                initializer=_prepare_worker,
                context=multiprocessing.get_context("spawn"),  # no threads or CUDA inherited
            )
        futures, reasons = {}, {}
        try:
            for job in jobs:
                futures[job] = self._pool.schedule(
                    _compare, args=(job, self.seconds), timeout=self.seconds
                )
            for job in tqdm(futures, desc="Grading", leave=False, delay=5):
                reasons[job] = _reason(futures[job])
        except RuntimeError:  # pebble's word for a broken pool, also from `schedule`
            self._stop()
        except BaseException:
            self._stop()  # interrupted: the workers have nobody to answer to
            raise
        return reasons

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None


def count_unscored(verdicts: Sequence[Verdict]) -> Counter[str]:
    """How many verdicts are unscored, by reason."""
    return Counter(verdict.reason for verdict in verdicts if verdict.correct is None)


def _has_box(completion: str, thinking_open: bool) -> bool:
    return final_answer(completion, thinking_open=thinking_open) is not None


def _asked(completion: str, gold: str, *, thinking_open: bool, lenient: bool) -> str | _Job:
    """The reason if it is clear without a worker, else the question to one."""
    if not _plain(gold):
        return "gold unparsed"
    after = answer_text(completion, thinking_open=thinking_open)
    if after is None:
        return _Job(gold, None, completion) if lenient else "unclosed thinking"
    box = last_box(after)
    found = "no box" if box is None else _spelling(gold, box)
    if lenient and found != "exact":
        return _Job(gold, box, after)
    return found or _Job(gold, box)


def _spelling(gold: str, box: str) -> str | None:
    """What the spelling alone decides; None when it decides nothing."""
    choice = _CHOICE.fullmatch(gold.strip())
    if choice:
        bare = "".join(filter(str.isalnum, _COMMAND.sub("", box)))  # \text{(b)} -> b
        return "exact" if bare.upper() == choice[1] else "different"
    if _plain(gold) == _plain(box):
        return "exact"
    if _INTEGER.fullmatch(_plain(gold)) and _INTEGER.fullmatch(_plain(box)):
        return "equal" if int(_plain(gold)) == int(_plain(box)) else "different"
    return None


def _plain(text: str) -> str:
    return re.sub(r"[\s$]", "", text)


def _reason(future: Any) -> str:
    try:
        reason: str = future.result()
    except TimeoutError:
        return "timeout"
    except pebble.ProcessExpired:
        return "crashed"
    except BrokenProcessPool:
        raise
    except Exception as error:  # noqa: BLE001 - on the way to the worker or back
        return f"error: {type(error).__name__}"
    return reason


# What follows runs in the workers, which import this module: it must stay light.


def _prepare_worker() -> None:
    import math_verify  # noqa: F401, PLC0415 - loaded before any limit runs

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # dies in the middle of one long operation, too
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we set no alarm
    _limit(resource.RLIMIT_DATA, MEMORY_BYTES)


def _compare(job: _Job, seconds: float) -> str:
    # Whoever should enforce `seconds` may have been killed: then the kernel does.
    _limit(resource.RLIMIT_CPU, int(time.process_time() + 2 * seconds) + 1)
    try:
        return _math(job)
    except Exception as error:  # noqa: BLE001 - sympy raises anything; it may not even pickle
        return f"error: {type(error).__name__}"


def _limit(kind: int, soft: int) -> None:
    hard = resource.getrlimit(kind)[1]
    with suppress(ValueError):  # a lower limit is set already
        resource.setrlimit(kind, (soft, hard))


def _math(job: _Job) -> str:
    from math_verify import StringExtractionConfig  # noqa: PLC0415

    choice = _CHOICE.fullmatch(job.gold.strip())
    if choice:
        letters = StringExtractionConfig(strings=CHOICES)
        found = _parse(_BRACKETED.sub(" ", job.text or ""), extraction_config=[letters])
        return "equal" if choice[1].lower() in found else "different"
    gold = _parse(_environment(job.gold))
    if all(isinstance(each, str) for each in gold):  # nothing, or only its spelling
        return "gold unparsed"
    boxed = None if job.box is None else f"\\boxed{{{job.box}}}"
    texts = [text for text in (boxed, job.text) if text]
    return "equal" if any(_equal(gold, _parse(text)) for text in texts) else "different"


def _environment(gold: str) -> str:
    """The gold as math-verify wants it, in a LaTeX environment (which must be one line)."""
    line = " ".join(gold.split())
    return line if _ENVIRONMENT.search(line) else f"${line}$"


def _parse(text: str, **options: Any) -> list[Any]:
    from math_verify import parse  # noqa: PLC0415

    found: list[Any] = parse(text, parsing_timeout=None, raise_on_error=True, **options)
    return found


def _equal(gold: list[Any], answer: list[Any]) -> bool:
    from math_verify import verify  # noqa: PLC0415

    return bool(verify(gold, answer, timeout_seconds=None, raise_on_error=True))
