"""Grading and writing of whole questions, in batches and in a separate thread."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepgrpo_core import ThinkingFormat
from training.evaluation.records import Record, append_questions
from training.evaluation.tasks import Question
from training.grading import Grades, Verdict
from training.rollouts.batch import Rollout, RolloutRequest
from training.rollouts.texts import text_of

__all__ = ["Writer", "Writing"]

CHUNK = 8  # questions between two writes
SECONDS = 10.0  # seconds between two writes, for slow questions
TAIL = 600
"""Maximum number of characters stored of an answer, and of the end of an incorrect completion."""


@dataclass(frozen=True, slots=True)
class Writing:
    """Settings and tools for the records of one contender on one task."""

    path: Path
    tokenizer: Any
    thinking: ThinkingFormat
    grader: Grades
    keep: bool
    """True if whole texts are stored."""


class Writer:
    """Collects the samples of each question; grades and writes whole questions in a thread."""

    def __init__(
        self,
        writing: Writing,
        questions: Sequence[Question],
        requests: Sequence[RolloutRequest],
        wrote: Callable[[int], Any],
    ) -> None:
        self._writing, self._questions, self._requests, self._wrote = (
            writing,
            questions,
            requests,
            wrote,
        )
        self._samples = len(requests) // len(questions)
        self._open: dict[int, list[Rollout]] = {}  # by index of the question
        self._done: dict[int, list[Rollout]] = {}
        self._written = time.monotonic()
        self._thread = ThreadPoolExecutor(1)
        self._sent: list[Future[None]] = []

    def take(self, rollout: Rollout) -> None:
        """Add a finished completion; raises errors of earlier grading or writing."""
        place = rollout.place // self._samples
        found = self._open.setdefault(place, [])
        found.append(rollout)
        if len(found) < self._samples:
            return
        self._done[place] = sorted(self._open.pop(place), key=lambda each: each.place)
        waited = time.monotonic() - self._written
        if len(self._done) >= CHUNK or waited > SECONDS:
            self._send()

    def close(self) -> None:
        """Write the questions that are complete, and wait for it."""
        self._send()
        self._thread.shutdown()
        for each in self._sent:
            each.result()

    def _send(self) -> None:
        for each in self._sent:
            if each.done():
                each.result()
        done, self._done = self._done, {}
        self._written = time.monotonic()
        if done:
            self._sent.append(self._thread.submit(self._write, done))

    def _write(self, done: Mapping[int, Sequence[Rollout]]) -> None:
        groups = self._graded(done)
        append_questions(self._writing.path, groups)
        self._wrote(len(groups))

    def _graded(self, done: Mapping[int, Sequence[Rollout]]) -> list[list[Record]]:
        """Return the records of each question."""
        rollouts = [rollout for found in done.values() for rollout in found]
        asked = [self._questions[each.place // self._samples] for each in rollouts]
        texts = [
            text_of(each, self._writing.tokenizer, self._writing.thinking) for each in rollouts
        ]
        golds, prompts = [each.gold for each in asked], [each.prompt for each in asked]
        # With one chat template, either all prompts open the thinking or none does.
        is_open = rollouts[0].thinking_open
        grade = self._writing.grader.grade
        strict = grade(texts, golds, questions=prompts, thinking_open=is_open)
        lenient = grade(texts, golds, thinking_open=is_open, lenient=True)
        starts = range(0, len(rollouts), self._samples)
        votes = self._writing.grader.votes([strict[at : at + self._samples] for at in starts])
        same = [vote for found in votes for vote in found]
        columns = zip(rollouts, texts, zip(strict, lenient, strict=True), same, strict=True)
        records = [self._record(*column) for column in columns]
        return [records[at : at + self._samples] for at in starts]

    def _record(
        self,
        rollout: Rollout,
        text: str,
        verdicts: tuple[Verdict, Verdict],
        same_as: int | None,
    ) -> Record:
        (verdict, lenient), keep = verdicts, self._writing.keep
        question = self._questions[rollout.place // self._samples]
        return Record(
            question=question.id,
            sample=rollout.place % self._samples,
            seed=self._requests[rollout.place].sampling.seed or 0,
            tokens=len(rollout.ids),
            reasoning_tokens=rollout.outcome.reasoning_tokens,
            steps=rollout.outcome.steps,
            correct=verdict.correct,
            lenient=lenient.correct,
            formatted=verdict.formatted,
            verdict=verdict.reason,
            ended=rollout.ended,
            exit=rollout.outcome.reason.value,
            probes=rollout.outcome.probes,
            probe_tokens=rollout.probe_tokens,
            discarded_tokens=rollout.discarded_tokens,
            text=text if keep else None,
            answer=verdict.answer and verdict.answer[:TAIL],
            same_as=same_as,
            tail=None if keep or verdict.correct else text[-TAIL:],
            groups=question.groups,
        )
