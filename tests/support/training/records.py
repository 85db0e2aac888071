"""Evaluated completions for tests."""

from typing import Any

from training.evaluation.records import Record


def record(question: int, sample: int = 0, **changes: Any) -> Record:
    """Return a correct completion of 100 tokens in 2 steps, with `changes`."""
    given: dict[str, Any] = {
        "seed": 7,
        "tokens": 100,
        "reasoning_tokens": 80,
        "steps": 2,
        "correct": True,
        "formatted": True,
        "verdict": "exact",
        "ended": True,
        "exit": "natural",
        "probes": 0,
        "probe_tokens": 0,
        "discarded_tokens": 0,
    } | changes
    given.setdefault("lenient", given["correct"])
    return Record(question=f"{question:05}", sample=sample, **given)
