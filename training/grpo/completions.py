"""Completions of training that are kept to be looked at (`stepgrpo-train show`).

One line per group, written while the run trains.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.grading import Verdict
from training.rollouts.batch import Rollout
from training.run.jsonl import append, damaged, open_jsonl, read_jsonl

__all__ = [
    "FILE",
    "CompletionLog",
    "KeptCompletion",
    "KeptGroup",
    "forget_after",
    "kept_completion",
    "kept_groups",
    "read_groups",
]

FILE = "completions.jsonl"
"""Name of the file in a run's output."""


@dataclass(frozen=True, slots=True)
class KeptCompletion:
    """One completion with its grade and its reward."""

    text: str
    reward: float | None
    """None if it was left out of training."""
    correct: bool | None
    verdict: str
    """Reason of the grader."""
    answer: str | None
    """Content of the last box after the thinking."""
    tokens: int
    reasoning_tokens: int
    steps: int
    exit: str
    """Reason why the thinking ended."""
    cut: int | None
    """Tokens before the injected closing text; None if nothing was injected."""
    confidences: tuple[float, ...]
    """Confidence of each probe."""
    probe_tokens: int
    discarded_tokens: int
    ended: bool
    """False if the token limit was reached."""


@dataclass(frozen=True, slots=True)
class KeptGroup:
    """The completions of one prompt at one step."""

    step: int
    place: int
    """Index of the prompt in the generation."""
    prompt: str
    gold: str
    completions: tuple[KeptCompletion, ...]


class CompletionLog:
    """Keeps the first `count` groups of each generation in a run's output."""

    def __init__(self, output: Path, count: int) -> None:
        self._path, self._count = output / FILE, count

    def keep(self, groups: Sequence[KeptGroup]) -> None:
        """Append the groups; they are on the disk when this returns."""
        if not self._count:
            return
        open_jsonl(self._path, {"version": 1})
        append(self._path, [dataclasses.asdict(each) for each in groups[: self._count]])


def kept_groups(
    step: int,
    prompts: Sequence[str],
    golds: Sequence[str],
    completions: Sequence[KeptCompletion],
    size: int,
) -> list[KeptGroup]:
    """Return consecutive completions, `size` of each prompt, as groups."""
    return [
        KeptGroup(
            step=step,
            place=start // size,
            prompt=prompts[start],
            gold=golds[start],
            completions=tuple(completions[start : start + size]),
        )
        for start in range(0, len(completions), size)
    ]


def kept_completion(
    text: str, rollout: Rollout, verdict: Verdict, steps: int, reward: float | None
) -> KeptCompletion:
    """Return what is kept of one completion."""
    outcome, injected = rollout.outcome, list(rollout.injected)
    return KeptCompletion(
        text=text,
        reward=reward,
        correct=verdict.correct,
        verdict=verdict.reason,
        answer=verdict.answer,
        tokens=len(rollout.ids),
        reasoning_tokens=outcome.reasoning_tokens,
        steps=steps,
        exit=str(outcome.reason),
        cut=injected.index(True) if True in injected else None,
        confidences=tuple(outcome.confidences),
        probe_tokens=rollout.probe_tokens,
        discarded_tokens=rollout.discarded_tokens,
        ended=rollout.ended,
    )


def forget_after(run: Path, step: int) -> None:
    """Remove the groups of steps after `step`, which a run that goes on from there makes again."""
    groups = [each for each in read_groups(run) if each.step <= step]
    (run / FILE).unlink(missing_ok=True)
    CompletionLog(run, len(groups)).keep(groups)


def read_groups(run: Path) -> list[KeptGroup]:
    """Return the groups that a run has kept, in their order; none if it has no file.

    Raises ValueError for a damaged line.
    """
    found = []
    for number, entry in read_jsonl(run / FILE):
        try:
            if number > 1:
                found.append(_parse(entry))
        except (KeyError, TypeError) as error:
            raise damaged(run / FILE, number, error) from error
    return found


def _parse(entry: dict[str, Any]) -> KeptGroup:
    completions = [
        KeptCompletion(**{**each, "confidences": tuple(each["confidences"])})
        for each in entry["completions"]
    ]
    return KeptGroup(**{**entry, "completions": tuple(completions)})
