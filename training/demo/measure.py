"""Measurements of the demo model on unseen problems: overthinking, exits, and confidence."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from vllm import SamplingParams

from stepgrpo_core import ExitSettings, answer_confidence, count_steps, final_answer
from stepgrpo_core.savings.intervals import wilson
from training.demo.world import LEVELS, Problem, sample_problems
from training.evaluation.intervals import RESAMPLES, difference_interval, resamples_of
from training.rollouts.offline import Engine, Exited, Generation, ProbeReading

__all__ = ["Summary", "measure", "sampling"]

MAX_TOKENS = 900
BINS = ((0.0, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1.0))
_LINE = re.compile(r"\d+((?:[+-]\d)+)=\d+")


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over problems; `accuracy_interval` is Wilson's, 95 %."""

    problems: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    tokens: float
    steps: float
    unfinished: float


def sampling(temperature: float) -> SamplingParams:
    """Return the sampling parameters of all measurements; the engine's own seed makes them
    repeatable."""
    return SamplingParams(temperature=temperature, max_tokens=MAX_TOKENS)


def measure(engine: Engine, *, problems: int, seed: int) -> dict[str, Any]:
    """Return all measurements of one model on `problems` test problems, as plain data."""
    tests = sample_problems(seed, "test", problems)
    prompts = [engine.chat_prompt(problem.prompt) for problem in tests]
    results: dict[str, Any] = {"problems": problems, "max_tokens": MAX_TOKENS}
    for temperature in (0.6, 1.0):
        params = sampling(temperature)
        vanilla = engine.generate(prompts, params)
        exited = engine.exits(vanilla, ExitSettings(policy="confidence"), params)
        results[f"T={temperature}"] = _compare(tests, vanilla, exited)
        if temperature == 0.6:
            results["reliability"] = _reliability(engine, tests, vanilla)
    return results


def is_correct(problem: Problem, completion: str) -> bool:
    """Return true if the last box after the thinking contains the true value."""
    return final_answer(completion) == str(problem.answer)


def _summary(problems: Sequence[Problem], generations: Sequence[Generation]) -> Summary:
    hits = [is_correct(p, g.text) for p, g in zip(problems, generations, strict=True)]
    return Summary(
        problems=len(hits),
        accuracy=fmean(hits),
        accuracy_interval=wilson(fmean(hits), len(hits)),
        tokens=fmean(len(each.ids) for each in generations),
        steps=fmean(count_steps(each.text) for each in generations),
        unfinished=fmean(not each.ended for each in generations),
    )


def _compare(
    problems: Sequence[Problem], vanilla: Sequence[Generation], exited: Sequence[Exited]
) -> dict[str, Any]:
    after = [each.generation for each in exited]
    before_summary, after_summary = _summary(problems, vanilla), _summary(problems, after)
    probe_tokens = fmean(each.probe_tokens for each in exited)
    gains = [
        is_correct(p, b.text) - is_correct(p, a.text)
        for p, a, b in zip(problems, vanilla, after, strict=True)
    ]
    resamples = resamples_of(len(gains), RESAMPLES, seed=0)
    difference = difference_interval([[gain] for gain in gains], resamples)
    assert difference is not None  # because there are problems
    return {
        "vanilla": asdict(before_summary),
        "vanilla by level": {
            level: asdict(_summary(*_only(level, problems, vanilla))) for level in LEVELS
        },
        "confidence": asdict(after_summary),
        "accuracy_difference": difference.value,
        "accuracy_difference_interval": (difference.low, difference.high),
        "probes": fmean(each.outcome.probes for each in exited),
        "probe_tokens": probe_tokens,
        "saved": 1 - after_summary.tokens / before_summary.tokens,
        "saved_net": 1 - (after_summary.tokens + probe_tokens) / before_summary.tokens,
    }


def _only(
    level: str, problems: Sequence[Problem], generations: Sequence[Generation]
) -> tuple[list[Problem], list[Generation]]:
    chosen = [(p, g) for p, g in zip(problems, generations, strict=True) if p.level == level]
    return [p for p, _ in chosen], [g for _, g in chosen]


def _reliability(
    engine: Engine, problems: Sequence[Problem], generations: Sequence[Generation]
) -> dict[str, Any]:
    """Return the mean confidence and accuracy of trial answers, before and after the derivation is
    complete: every boundary of every generation is probed, whatever its confidence."""
    everywhere = ExitSettings(policy="confidence", threshold=1.0, max_probes=100, min_interval=0)
    exits = engine.exits(generations, everywhere, sampling(0.0))
    rows: dict[bool, list[tuple[float, bool]]] = {False: [], True: []}
    for problem, generation, exited in zip(problems, generations, exits, strict=True):
        for reading in exited.probes:
            text = engine.tokenizer.decode(generation.ids[: reading.position])
            complete = _worked_out(text) >= len(problem.operations)
            rows[complete].append(
                (answer_confidence(reading.trial.logprobs), _hit(problem, reading))
            )
    return {
        "incomplete" if not complete else "complete": _table(found)
        for complete, found in rows.items()
    }


def _worked_out(text: str) -> int:
    """Return the number of operations computed so far; a pass that a marker interrupts
    continues."""
    return sum(len(operations) // 2 for operations in _LINE.findall(text))  # "+3-5": two


def _hit(problem: Problem, reading: ProbeReading) -> bool:
    return reading.text.startswith(f"{{{problem.answer}}}")


def _table(rows: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    def row(found: Sequence[tuple[float, bool]]) -> dict[str, Any]:
        empty = {"trials": 0, "confidence": None, "accuracy": None}
        return (
            {
                "trials": len(found),
                "confidence": fmean(c for c, _ in found),
                "accuracy": fmean(hit for _, hit in found),
            }
            if found
            else empty
        )

    bins = {
        f"{low}-{high}": row([r for r in rows if low <= r[0] < high or r[0] == high == 1.0])
        for low, high in BINS
    }
    return {"all": row(rows), "by confidence": bins}
