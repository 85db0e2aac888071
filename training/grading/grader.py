r"""The grader: the strict rule, and the treatment of answers that cannot be graded.

As in training, the strict rule accepts only the last box after the thinking. Thinking that never
closed, a missing box and a truncated last box are wrong; the answer is not examined.

An answer that is out of bounds (`within_bounds`) is wrong. A box with unevaluated arithmetic is
wrong as "unevaluated" unless `pay_unevaluated` is set: otherwise a policy would be rewarded for
copying the question's formula. An answer that exceeds the processor time is therefore wrong, as
"costly", if it could only be unevaluated or different. Any other such answer is unscored (None): it
is left out of every mean and baseline, counted by reason, and gets at most a few more seconds
(`workers`).
"""

import itertools
import threading
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Self

from stepgrpo_core import InvalidSetting, answer_text, last_box
from stepgrpo_core.answers import THINK_END, THINK_START
from stepgrpo_core.sameness import (
    compare,
    is_copied,
    is_stray_percent,
    is_unevaluated,
    normalize,
    within_bounds,
)
from training.grading.workers import GradingJob, Workers

__all__ = ["Grader", "Verdict", "count_unscored"]

CORRECT = {
    "exact": True,
    "equal": True,
    "different": False,
    "unevaluated": False,
    "costly": False,
    "percent": False,
    "over bounds": False,
    "no box": False,
    "unclosed thinking": False,
}
"""Correctness by reason; any other reason leaves the answer unscored."""

COMPARED = 8
"""Maximum number of different wrong answers to a question that workers compare pairwise."""
SPENT = {"timeout", "error: MemoryError", "error: RecursionError"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The grader's result for one completion."""

    correct: bool | None
    """None: unscored; leave it out of every mean and baseline."""
    formatted: bool
    """True if there is a box after the thinking, whatever its content."""
    reason: str
    """A key of `CORRECT`, or the reason it is unscored: "timeout", "crashed", "gold unparsed" or
    "error: " and the exception's name."""
    answer: str | None = field(default=None, compare=False)
    """The content of the last box after the thinking; None without one."""


class Grader:
    """Grades completions against gold answers; a context manager that stops its workers.

    `seconds` limits the processor time of each comparison, and `workers` is the number of
    processes, which start with the first comparison that needs one. `pay_unevaluated` makes
    unevaluated answers of the right value correct. `start` and `end` delimit the thinking in the
    model's family. `unscored` counts reasons over all calls. Calls from several threads are allowed
    and run one at a time.
    """

    def __init__(
        self,
        *,
        seconds: float = 5.0,
        workers: int = 2,
        pay_unevaluated: bool = False,
        start: str = THINK_START,
        end: str = THINK_END,
    ) -> None:
        if not 0 < seconds < float("inf"):
            raise InvalidSetting("seconds", seconds, "use a positive number of seconds")
        if workers < 1:
            raise InvalidSetting("workers", workers, "use at least one process")
        self.unscored: Counter[str] = Counter()
        self._pay_unevaluated = pay_unevaluated
        self._start, self._end = start, end
        self._workers = Workers(workers, seconds)
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers; a later `grade` starts new ones."""
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

        With `questions`, an answer that repeats a formula of its question is unevaluated, too, and
        a percent sign is no unit of an answer to a question that speaks of no percentage.
        `thinking_open` is true if the prompts ended in ``<think>``. `lenient` also accepts
        unevaluated answers, and anything that math-verify finds, down to the last number, in the
        text after the thinking (in all of the text if the thinking never closed). It is a second
        column for evaluation, never a reward.

        Raises ValueError if the lengths differ, and GraderBroken if no worker can run.
        """
        if len(completions) != len(golds):
            sizes = f"{len(completions)} completions and {len(golds)} golds"
            raise ValueError(f"{sizes} cannot be graded; pass one gold per completion")
        afters = [self._after(each, thinking_open) for each in completions]
        asked = [
            _asked(after, gold, completion if lenient else None)
            for after, gold, completion in zip(afters, golds, completions, strict=True)
        ]
        reasons = self._decide([each for each in asked if isinstance(each, GradingJob)])
        found = [
            self._final(each, reasons) if isinstance(each, GradingJob) else each for each in asked
        ]
        if questions is not None and not lenient:
            places = zip(found, questions, golds, afters, strict=True)
            found = [_asked_for(*place) for place in places]
        boxes = [None if after is None else last_box(after) for after in afters]
        verdicts = [
            Verdict(self._correct(reason), box is not None, reason, box)
            for reason, box in zip(found, boxes, strict=True)
        ]
        self.unscored += count_unscored(verdicts)
        return verdicts

    def votes(self, groups: Sequence[Sequence[Verdict]]) -> list[list[int | None]]:
        """Return for each answer the index in its group of the first answer that is the same.

        A group holds the strict verdicts on one question. All correct answers are the same. Others
        are compared with each other like an answer with a gold; mathematics compares only the first
        `COMPARED` spellings of a group. None: no answer, or an unscored one.
        """
        wrong = [_spellings(group) for group in groups]
        pairs = [pair for found in wrong for pair in itertools.combinations(found, 2)]
        light = {pair: _light(*pair) for pair in pairs}
        first = [itertools.combinations(found[:COMPARED], 2) for found in wrong]
        costly = dict.fromkeys(itertools.chain.from_iterable(first))
        jobs = [GradingJob(*pair) for pair in costly if light[pair] is None]
        reasons = self._decide(jobs)
        same = {
            pair
            for pair, found in light.items()
            if (found or reasons.get(GradingJob(*pair))) in {"exact", "equal"}
        }
        return [_votes(group, found, same) for group, found in zip(groups, wrong, strict=True)]

    def _after(self, completion: str, thinking_open: bool) -> str | None:
        return answer_text(
            completion, thinking_open=thinking_open, start=self._start, end=self._end
        )

    def _decide(self, jobs: Sequence[GradingJob]) -> dict[GradingJob, str]:
        with self._turn:
            return self._workers.decide(jobs)

    def _correct(self, reason: str) -> bool | None:
        return self._pay_unevaluated if reason == "unevaluated" else CORRECT.get(reason)

    def _final(self, job: GradingJob, reasons: dict[GradingJob, str]) -> str:
        """Return the reason of a job; an answer that could not be paid anyway is never unscored."""
        reason = reasons[job]
        if reason not in SPENT or self._pay_unevaluated or job.text is not None:
            return reason
        assert job.box is not None, "a strict job has a box"
        unpaid = is_unevaluated(normalize(job.gold), normalize(job.box))
        return "costly" if unpaid else reason


def count_unscored(verdicts: Sequence[Verdict]) -> Counter[str]:
    """Count the verdicts that are unscored, by reason."""
    return Counter(verdict.reason for verdict in verdicts if verdict.correct is None)


def _spellings(group: Sequence[Verdict]) -> list[str]:
    """Return the distinct spellings of a group's wrong answers, in their order."""
    return list(dict.fromkeys(filter(None, map(_wrong, group))))


def _wrong(verdict: Verdict) -> str | None:
    """Return the spelling of a wrong answer; None for a correct or missing one."""
    return None if verdict.correct is not False else _plain(verdict.answer or "") or None


def _votes(
    group: Sequence[Verdict], wrong: Sequence[str], same: Container[tuple[str, str]]
) -> list[int | None]:
    first: dict[str, str] = {}  # the first spelling that is the same as each
    for place, text in enumerate(wrong):
        earlier = (first[each] for each in wrong[:place] if (each, text) in same)
        first[text] = next(earlier, text)
    keys = [True if each.correct else first.get(_wrong(each) or "") for each in group]
    return [None if key is None else keys.index(key) for key in keys]


def _asked_for(reason: str, question: str, gold: str, after: str | None) -> str:
    """Return the reason, or a stricter one that only the question shows."""
    box = last_box(after) if reason == "equal" and after is not None else None
    if box is None:
        return reason
    if is_copied(question, gold, box):
        return "unevaluated"
    return "percent" if is_stray_percent(question, gold, box) else reason


def _asked(after: str | None, gold: str, completion: str | None) -> str | GradingJob:
    """Return the reason if it is clear without a worker, else a job for one.

    `after` is the text after the thinking; the lenient reader gets the whole `completion` if the
    thinking never closed.
    """
    if not _plain(gold):
        return "gold unparsed"
    if after is None:
        return "unclosed thinking" if completion is None else GradingJob(gold, None, completion)
    box = last_box(after)
    found = "no box" if box is None else _light(gold, box)
    if completion is not None and found not in {"exact", "equal"}:
        return GradingJob(gold, box, after)
    return found or GradingJob(gold, box)


def _light(gold: str, box: str) -> str | None:
    """Return the reason if it is clear without mathematics, else None."""
    if _plain(gold) == _plain(box):
        return "exact"
    if not within_bounds(box):
        return "over bounds"
    found = compare(gold, box)
    return "equal" if found == "same" else found


def _plain(text: str) -> str:
    return " ".join(text.replace("$", "").split())
