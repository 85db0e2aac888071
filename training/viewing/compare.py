"""`stepgrpo-train compare`: paired differences of two evaluations, or of two runs.

Of runs, the completions that both have kept for the same prompt at the same step are compared, so
both must have the same data, seed and number of prompts. Intervals are those of the evaluation's
report, clustered by question; of runs, they are conditional on the two runs: seeds vary more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.evaluation.records import Record, read_head, read_records
from training.evaluation.report import write_report
from training.grpo.completions import FILE, KeptCompletion, KeptGroup, read_groups

__all__ = ["compare"]

ROLLOUTS = "training rollouts"
"""Name of the task that the completions of a run form."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two, by task."""

    records: Mapping[str, list[Record]]
    heads: Mapping[str, dict[str, Any]]


def compare(first: Path, second: Path, output: Path) -> None:
    """Write results.md, results.json and tradeoff.png to `output`; `first` is the baseline.

    Each is the folder of a contender in an evaluation, an evaluation with one contender, or the
    output of a GRPO run. Raises ValueError if they are of different kinds, or have no task, no
    questions or no prompts in common.
    """
    if first.resolve() == second.resolve():
        raise ValueError(f"{first} is compared with itself; name two folders")
    runs = [(each / FILE).is_file() for each in (first, second)]
    if runs == [True, True]:
        sides = _runs(first, second)
    elif any(runs):
        raise ValueError(f"{first} and {second}: one is a run, and the other is not")
    else:
        sides = _evaluations(first, second)
    names = (str(first), str(second))
    heads = {name: side.heads for name, side in zip(names, sides, strict=True) if side.heads}
    records = {name: side.records for name, side in zip(names, sides, strict=True)}
    write_report(output, records, baseline=names[0], heads=heads)


def _evaluations(first: Path, second: Path) -> tuple[_Side, _Side]:
    files = [_files(each) for each in (first, second)]
    shared = sorted(files[0].keys() & files[1].keys())
    if not shared:
        found = " and ".join(", ".join(sorted(each)) for each in files)
        raise ValueError(f"{first} and {second} have no task in common: {found}")
    sides = [
        _Side(
            {task: read_records(each[task]) for task in shared},
            {task: read_head(each[task]) for task in shared},
        )
        for each in files
    ]
    for task in shared:
        digests = [side.heads[task]["settings"]["questions"] for side in sides]
        if digests[0] != digests[1]:
            raise ValueError(f"{first} and {second} answered other questions of {task}")
    return sides[0], sides[1]


def _files(folder: Path) -> dict[str, Path]:
    """Return the files of records of a contender's folder by task."""
    contenders = {path.parent for path in (*folder.glob("*.jsonl"), *folder.glob("*/*.jsonl"))}
    if not contenders:
        raise ValueError(f"{folder} holds no records; name the output of an evaluation or a run")
    if len(contenders) > 1:
        choices = ", ".join(sorted(map(str, contenders)))
        raise ValueError(f"{folder} has several contenders; name one of {choices}")
    return {read_head(path)["settings"]["task"]: path for path in contenders.pop().glob("*.jsonl")}


def _runs(first: Path, second: Path) -> tuple[_Side, _Side]:
    groups = [{(each.step, each.place): each for each in read_groups(p)} for p in (first, second)]
    shared = [
        (group, other)
        for place, group in groups[0].items()
        if (other := groups[1].get(place)) and other.prompt == group.prompt
    ]
    if not shared:
        raise ValueError(
            f"{first} and {second} have no prompt at the same step; compare runs of the same data, "
            "seed and number of prompts, or evaluate both"
        )
    sizes = [min(len(a.completions), len(b.completions)) for a, b in shared]
    sides = [
        [
            record
            for pair, size in zip(shared, sizes, strict=True)
            for record in _records(pair[side], size)
        ]
        for side in (0, 1)
    ]
    return _Side({ROLLOUTS: sides[0]}, {}), _Side({ROLLOUTS: sides[1]}, {})


def _records(group: KeptGroup, size: int) -> list[Record]:
    question = f"{group.step:06}.{group.place:04}"
    return [_record(question, sample, each) for sample, each in enumerate(group.completions[:size])]


def _record(question: str, sample: int, each: KeptCompletion) -> Record:
    return Record(
        question=question,
        sample=sample,
        seed=0,
        tokens=each.tokens,
        reasoning_tokens=each.reasoning_tokens,
        steps=each.steps,
        correct=each.correct,
        lenient=each.correct,
        formatted=each.answer is not None,
        verdict=each.verdict,
        ended=each.ended,
        exit=each.exit,
        probes=len(each.confidences),
        probe_tokens=each.probe_tokens,
        discarded_tokens=each.discarded_tokens,
        answer=each.answer,
    )
