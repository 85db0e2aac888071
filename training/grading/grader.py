r"""The grader: the strict rule, and what it costs when an answer cannot be graded.

Strict, as in training: only the last box after ``</think>`` counts. Thinking that never closed,
a missing box and a last box that was cut short are wrong without a look at the answer.

An answer that is out of bounds (`within_bounds`) is wrong. A box whose arithmetic was left
standing is wrong as "unevaluated" unless `pay_unevaluated` is set: else a policy is paid for
copying the question's formula. So an answer that runs out of processor time is wrong, as
"costly", if it could only be unevaluated or different; any other is unscored (None): left out
of every mean and baseline, counted by reason, and given at most some seconds more (`workers`).
"""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from stepgrpo_core import InvalidSetting, answer_text, final_answer, last_box
from stepgrpo_core.sameness import compare, is_copied, is_unevaluated, normalize, within_bounds
from training.grading.workers import GradingJob, Workers

__all__ = ["Grader", "Verdict", "count_unscored"]

CORRECT = {
    "exact": True,
    "equal": True,
    "different": False,
    "unevaluated": False,
    "costly": False,
    "over bounds": False,
    "no box": False,
    "unclosed thinking": False,
}
"""What a reason says about the answer; any other reason leaves it unscored."""

SPENT = {"timeout", "error: MemoryError", "error: RecursionError"}


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


class Grader:
    """Grades completions against gold answers; a context manager that ends its workers.

    `seconds` limits the processor time of each comparison and `workers` is the number of
    processes, which start with the first comparison that needs one. `pay_unevaluated` makes
    unevaluated answers of the right value correct. `unscored` counts reasons over all calls. Any
    thread may call; calls take turns.
    """

    def __init__(
        self, *, seconds: float = 5.0, workers: int = 2, pay_unevaluated: bool = False
    ) -> None:
        if not 0 < seconds < float("inf"):
            raise InvalidSetting("seconds", seconds, "use a positive number of seconds")
        if workers < 1:
            raise InvalidSetting("workers", workers, "use at least one process")
        self.unscored: Counter[str] = Counter()
        self._pay_unevaluated = pay_unevaluated
        self._workers = Workers(workers, seconds)
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; a later `grade` starts new ones."""
        with self._turn:
            self._workers.stop()

    def grade(
        self,
        completions: Sequence[str],
        golds: Sequence[str],
        *,
        questions: Sequence[str] | None = None,
        thinking_open: bool = False,
        lenient: bool = False,
    ) -> list[Verdict]:
        """Return one verdict per completion, in order; shapes (N,), (N,) -> (N,).

        With `questions` an answer that hands a formula of its question back is unevaluated, too.
        `thinking_open` says that the prompts ended in ``<think>``. `lenient` also accepts what
        is unevaluated and what math-verify finds in the text after the thinking, or in all of it
        when that never closed, down to its last number: a second column for evaluation, never a
        reward.

        Raises ValueError when the lengths differ and GraderBroken when no worker can run.
        """
        if len(completions) != len(golds):
            sizes = f"{len(completions)} completions and {len(golds)} golds"
            raise ValueError(f"{sizes} cannot be graded; pass one gold per completion")
        asked = [
            _asked(completion, gold, thinking_open=thinking_open, lenient=lenient)
            for completion, gold in zip(completions, golds, strict=True)
        ]
        with self._turn:
            reasons = self._workers.decide([each for each in asked if isinstance(each, GradingJob)])
        found = [
            self._final(each, reasons) if isinstance(each, GradingJob) else each for each in asked
        ]
        if questions is not None and not lenient:
            places = zip(found, questions, golds, completions, strict=True)
            found = [_copied(*place) for place in places]
        verdicts = [
            Verdict(self._correct(reason), _has_box(completion, thinking_open), reason)
            for reason, completion in zip(found, completions, strict=True)
        ]
        self.unscored += count_unscored(verdicts)
        return verdicts

    def _correct(self, reason: str) -> bool | None:
        return self._pay_unevaluated if reason == "unevaluated" else CORRECT.get(reason)

    def _final(self, job: GradingJob, reasons: dict[GradingJob, str]) -> str:
        """Return the reason of a job; one that could not be paid anyway is never unscored."""
        reason = reasons[job]
        if reason not in SPENT or self._pay_unevaluated or job.text is not None:
            return reason
        assert job.box is not None, "a strict job has a box"
        unpaid = is_unevaluated(normalize(job.gold), normalize(job.box))
        return "costly" if unpaid else reason


def count_unscored(verdicts: Sequence[Verdict]) -> Counter[str]:
    """Count the verdicts that are unscored, by reason."""
    return Counter(verdict.reason for verdict in verdicts if verdict.correct is None)


def _has_box(completion: str, thinking_open: bool) -> bool:
    return final_answer(completion, thinking_open=thinking_open) is not None


def _copied(reason: str, question: str, gold: str, completion: str) -> str:
    """Return the reason, or that a formula of the question was handed back."""
    box = last_box(completion) if reason == "equal" else None
    return "unevaluated" if box is not None and is_copied(question, gold, box) else reason


def _asked(completion: str, gold: str, *, thinking_open: bool, lenient: bool) -> str | GradingJob:
    """Return the reason if it is clear without a worker, else the question to one."""
    if not _plain(gold):
        return "gold unparsed"
    after = answer_text(completion, thinking_open=thinking_open)
    if after is None:
        return GradingJob(gold, None, completion) if lenient else "unclosed thinking"
    box = last_box(after)
    found = "no box" if box is None else _light(gold, box)
    if lenient and found not in {"exact", "equal"}:
        return GradingJob(gold, box, after)
    return found or GradingJob(gold, box)


def _light(gold: str, box: str) -> str | None:
    """Return what needs no mathematics; None when it decides nothing."""
    if _plain(gold) == _plain(box):
        return "exact"
    if not within_bounds(box):
        return "over bounds"
    found = compare(gold, box)
    return "equal" if found == "same" else found


def _plain(text: str) -> str:
    return " ".join(text.replace("$", "").split())
