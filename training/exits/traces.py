"""Traces for exit thresholds: what every candidate would have delivered on the same full runs.

Every question is completed once in full. The real controller then decides over that completion with
the settings of each candidate, and answers after exits are generated, not taken from probes. Equal
probes, and answers after equal exits, are generated once and shared by all candidates.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from vllm import SamplingParams

from stepgrpo_core import ExitSettings
from stepgrpo_core.families.thinking import opens_in_thinking
from stepgrpo_core.policies import ExitReason
from stepgrpo_core.risk import Exit
from training.data.sources import Row
from training.exits.store import Recorded
from training.exits.sweeps import Sweep
from training.grading import Grader
from training.rollouts.offline import Engine, Exited, Generation

__all__ = ["RememberingEngine", "record"]


class RememberingEngine(Engine):
    """An engine that generates equal probes and equal answers once, while it is told to."""

    memory: dict[Any, Any] | None = None
    """Completions by prompt and parameters; None: nothing is remembered."""

    def _run(
        self,
        prompts: Sequence[tuple[int, ...]],
        params: SamplingParams | Sequence[SamplingParams],
    ) -> list[Any]:
        if self.memory is None:
            return super()._run(prompts, params)
        memory = self.memory
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else params
        keys = [(prompt, repr(own)) for prompt, own in zip(prompts, each, strict=True)]
        new = {key: own for key, own in zip(keys, each, strict=True) if key not in memory}
        outputs = super()._run([prompt for prompt, _ in new], [*new.values()])
        memory.update(zip(new, outputs, strict=True))
        return [memory[key] for key in keys]


def record(
    engine: RememberingEngine,
    rows: Sequence[Row],
    sweeps: Iterable[Sweep],
    params: SamplingParams,
    *,
    gold: bool,
) -> list[Recorded]:
    """Complete every row, and return what each candidate of `sweeps` makes of it.

    Rows with equal prompts are runs of one question. `gold` says that the rows have gold answers.
    """
    engine.memory = None
    fulls = engine.generate([engine.chat_prompt(row.prompt) for row in rows], params)
    engine.memory = {}
    counted = engine.exits(fulls, ExitSettings(policy="none"), params)
    tokens = [each.outcome.reasoning_tokens for each in counted]
    found = {
        sweep.policy: [engine.exits(fulls, settings, params) for settings in sweep.settings]
        for sweep in sweeps
    }
    engine.memory = None
    graded = _Graded(engine, rows, fulls)
    graded.grade(each for of in found.values() for exited in of for each in enumerate(exited))
    return [
        Recorded(
            row.prompt,
            tokens[index],
            graded.right[index] if gold else None,
            {
                policy: tuple(graded.exit(index, each[index], tokens[index], gold) for each in of)
                for policy, of in found.items()
            },
            {policy: tuple(_signal(each[index]) for each in of) for policy, of in found.items()},
        )
        for index, row in enumerate(rows)
    ]


def _signal(exited: Exited) -> float | None:
    ended = exited.outcome.reason in (ExitReason.NATURAL, ExitReason.EOS_IN_THINKING)
    return None if ended else exited.outcome.confidence


class _Graded:
    """Grades of full runs and of completions after exits, each text once."""

    def __init__(self, engine: Engine, rows: Sequence[Row], fulls: Sequence[Generation]) -> None:
        self._family = engine.form.family
        prompt = fulls[0].prompt_ids
        self._opened = opens_in_thinking(engine.tokenizer, engine.thinking, prompt)
        self._golds = [row.answer for row in rows]
        self._fulls = [full.text for full in fulls]
        self._changed: dict[tuple[int, str], bool] = {}
        self._right: dict[tuple[int, str], bool] = {}

    @property
    def right(self) -> list[bool]:
        """Whether each full run is right."""
        return [self._right[index, text] for index, text in enumerate(self._fulls)]

    def grade(self, exited: Iterable[tuple[int, Exited]]) -> None:
        """Grade the completions after exits, given with the index of their row."""
        texts = {(index, each.generation.text) for index, each in exited}
        keys = sorted(texts | {*enumerate(self._fulls)})
        with Grader(start=self._family.start, end=self._family.end) as grader:
            own = grader.grade(
                [text for _, text in keys],
                [self._golds[index] for index, _ in keys],
                thinking_open=self._opened,
            )
            verdicts = dict(zip(keys, own, strict=True))
            boxes = [verdicts[key].answer for key in enumerate(self._fulls)]
            same = grader.grade(
                [text for _, text in keys],
                [boxes[index] or "" for index, _ in keys],
                thinking_open=self._opened,
            )
        for (index, text), equal in zip(keys, same, strict=True):
            self._right[index, text] = verdicts[index, text].correct is True
            differs = equal.answer is not None and equal.correct is not True
            missing = equal.answer is None and boxes[index] is not None
            self._changed[index, text] = text != self._fulls[index] and (differs or missing)

    def exit(self, index: int, exited: Exited, tokens: int, gold: bool) -> Exit:
        """Return what a candidate delivers for a row whose full run has `tokens` of thinking."""
        key = index, exited.generation.text
        before, after = self.right[index], self._right[key]
        return Exit(
            min(exited.outcome.reasoning_tokens, tokens),
            self._changed[key],
            (before and not after) if gold else None,
            (after and not before) if gold else None,
            exited.probe_tokens,
        )
