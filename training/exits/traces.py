"""Traces for exit thresholds: the answers that exits at each threshold would have delivered.

Every prompt is completed once in full. Policy `confidence` then reads its signal at each of its
boundaries. For every threshold the answer after the exit is generated, not taken from the probe;
thresholds that exit at the same boundary share it.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from vllm import SamplingParams

from stepgrpo_core import ExitSettings
from stepgrpo_core.families.table import apply_family
from stepgrpo_core.families.thinking import opens_in_thinking
from stepgrpo_core.policies.confidence import confidence_of
from stepgrpo_core.risk import Reading, Trace
from training.data.sources import Row
from training.grading import Grader
from training.rollouts.offline import Engine, Exited, Generation

__all__ = ["record_traces"]


@dataclass(frozen=True, slots=True)
class _Run:
    """A completion without exits, its probes, and the completions after exits."""

    row: Row
    full: Generation
    reasoning_tokens: int
    signals: tuple[tuple[int, float], ...]
    """Position and confidence of each probe, in order."""
    exits: dict[int, tuple[float, Exited]] = field(default_factory=dict)
    """Confidence and completion of each exit, by its position."""

    def exit_at(self, threshold: float) -> tuple[int, float] | None:
        """Return position and confidence of the exit at `threshold`, or None."""
        return next((each for each in self.signals if each[1] > threshold), None)


def record_traces(
    engine: Engine,
    rows: Sequence[Row],
    settings: ExitSettings,
    params: SamplingParams,
    *,
    thresholds: Iterable[float],
    gold: bool,
) -> list[Trace]:
    """Return one trace per row, to be replayed at `thresholds`.

    Rows with equal prompts are runs of one question. `gold` says that the rows have gold answers.
    """
    runs = _complete(engine, rows, settings, params)
    for threshold in sorted(set(thresholds), reverse=True):
        _answer(engine, runs, dataclasses.replace(settings, threshold=threshold), params)
    family = engine.form.family
    with Grader(start=family.start, end=family.end) as grader:
        return _traces(engine, runs, grader, gold=gold)


def _complete(
    engine: Engine, rows: Sequence[Row], settings: ExitSettings, params: SamplingParams
) -> list[_Run]:
    """Complete every row without exits, and probe at each boundary of the policy."""
    fulls = engine.generate([engine.chat_prompt(row.prompt) for row in rows], params)
    probing = dataclasses.replace(settings, threshold=1.0)  # no confidence is above it
    probed = engine.exits(fulls, probing, params)
    own = apply_family(settings, engine.form.family)
    return [
        _Run(
            row,
            full,
            found.outcome.reasoning_tokens,
            tuple((each.position, confidence_of(each.trial, own)) for each in found.probes),
        )
        for row, full, found in zip(rows, fulls, probed, strict=True)
    ]


def _answer(
    engine: Engine, runs: Sequence[_Run], settings: ExitSettings, params: SamplingParams
) -> None:
    """Generate the answers after the exits that no higher threshold shares."""
    found = [(run, run.exit_at(settings.threshold)) for run in runs]
    new = [(run, at) for run, at in found if at is not None and at[0] not in run.exits]
    exited = engine.exits([run.full for run, _ in new], settings, params)
    for (run, (position, confidence)), each in zip(new, exited, strict=True):
        run.exits[position] = (confidence, each)


def _traces(engine: Engine, runs: Sequence[_Run], grader: Grader, *, gold: bool) -> list[Trace]:
    """Grade all completions in a few batches, and return the traces."""
    exits = [(run, at, *run.exits[at]) for run in runs for at in sorted(run.exits)]
    opened = _opened(engine, runs)
    fulls = [run.full.text for run in runs]
    verdicts = grader.grade(fulls, [run.row.answer for run in runs], thinking_open=opened)
    boxes = {id(run): each.answer for run, each in zip(runs, verdicts, strict=True)}
    texts = [exited.generation.text for *_, exited in exits]
    right = grader.grade(texts, [run.row.answer for run, *_ in exits], thinking_open=opened)
    golds = [boxes[id(run)] or "" for run, *_ in exits]
    same = grader.grade(texts, golds, thinking_open=opened)
    readings: dict[int, list[Reading]] = {id(run): [] for run in runs}
    for (run, _, confidence, exited), hit, equal in zip(exits, right, same, strict=True):
        changed = equal.answer is not None and equal.correct is not True
        readings[id(run)].append(
            Reading(
                min(exited.outcome.reasoning_tokens, run.reasoning_tokens),
                confidence,
                changed or (equal.answer is None and boxes[id(run)] is not None),
                hit.correct is True if gold else None,
            )
        )
    return [
        Trace(
            run.row.prompt,
            run.reasoning_tokens,
            tuple(readings[id(run)]),
            verdict.correct is True if gold else None,
        )
        for run, verdict in zip(runs, verdicts, strict=True)
    ]


def _opened(engine: Engine, runs: Sequence[_Run]) -> bool:
    prompt = runs[0].full.prompt_ids
    return opens_in_thinking(engine.tokenizer, engine.thinking, prompt)
