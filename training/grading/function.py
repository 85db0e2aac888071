"""User-defined grader: a function of an answer and its gold."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from stepgrpo_core import answer_text, last_box
from stepgrpo_core.answers import THINK_END, THINK_START
from stepgrpo_core.plugins import load_object, takes
from stepgrpo_core.sameness import same_value
from training.config.schema import GradingConfig
from training.grading.grader import Grader, Verdict, count_unscored

__all__ = ["FunctionGrader", "Grades", "grader_of"]

Score = Callable[[str, str], bool | None]
"""Function of the text after the thinking and the gold: whether it is correct; None: undecided."""


class Grades(Protocol):
    """Interface of a grader; `Grader` documents the methods."""

    def grade(
        self,
        completions: Sequence[str],
        golds: Sequence[str],
        *,
        questions: Sequence[str] | None = None,
        thinking_open: bool = False,
        lenient: bool = False,
    ) -> list[Verdict]:
        """Return one verdict per completion, in order."""

    def votes(self, groups: Sequence[Sequence[Verdict]]) -> list[list[int | None]]:
        """Return for each answer the index in its group of the first answer that is the same."""

    def __enter__(self) -> Self:
        """Return the grader; nothing is started yet."""

    def __exit__(self, *_: object) -> None:
        """Stop everything that was started."""


@dataclass(frozen=True, slots=True)
class FunctionGrader:
    """Grades with a function, in this process. An answer for which it raises, or returns something
    else than True, False and None, is unscored."""

    score: Score
    start: str = THINK_START
    end: str = THINK_END
    unscored: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def grade(
        self,
        completions: Sequence[str],
        golds: Sequence[str],
        *,
        questions: Sequence[str] | None = None,  # noqa: ARG002 - the function has its own rules
        thinking_open: bool = False,
        lenient: bool = False,  # noqa: ARG002
    ) -> list[Verdict]:
        """Return one verdict per completion, in order; `lenient` makes no difference."""
        pairs = zip(completions, golds, strict=True)
        verdicts = [self._verdict(text, gold, thinking_open) for text, gold in pairs]
        self.unscored.update(count_unscored(verdicts))
        return verdicts

    def votes(self, groups: Sequence[Sequence[Verdict]]) -> list[list[int | None]]:
        """Return the same as `Grader.votes`, but without mathematics."""
        return [[_vote(each, group) for each in group] for group in groups]

    def _verdict(self, completion: str, gold: str, thinking_open: bool) -> Verdict:
        text = answer_text(completion, thinking_open=thinking_open, start=self.start, end=self.end)
        if text is None:
            return Verdict(correct=False, formatted=False, reason="unclosed thinking")
        answer = last_box(text) or (text.strip().splitlines() or [""])[-1] or None
        try:
            found = self.score(text, gold)
            if found not in (True, False, None):
                raise ValueError(found)  # a share of the points, for example
        except Exception as error:  # noqa: BLE001 - user code may raise anything
            return Verdict(None, answer is not None, f"error: {type(error).__name__}", answer)
        correct = None if found is None else bool(found)
        reason = {True: "correct", False: "wrong", None: "undecided"}[correct]
        return Verdict(correct, answer is not None, reason, answer)


def _vote(verdict: Verdict, group: Sequence[Verdict]) -> int | None:
    if verdict.correct is None or verdict.answer is None:
        return None
    return next(
        place
        for place, other in enumerate(group)
        if other.correct is verdict.correct
        and other.answer is not None
        and (verdict.correct or same_value(other.answer, verdict.answer))
    )


def grader_of(config: GradingConfig, start: str, end: str) -> Grades:
    """Return the grader of a configuration: its function, or the built-in grader.

    `start` and `end` delimit the thinking in the model's family.
    """
    if config.grader is not None:
        score = load_object(config.grader, "grader", takes(2), "a function", "graders")
        return FunctionGrader(score, start, end)
    return Grader(
        seconds=config.seconds,
        workers=config.workers,
        pay_unevaluated=config.pay_unevaluated,
        start=start,
        end=end,
    )
