"""Error rates of the grader on the golds of the benchmarks, beside those of math-verify.

    python -m benchmarks.core.grader --data FOLDER [--sample 60] [--workers 2]

Every gold of the sample is rewritten with the same meaning (`renderings.SAME`: a rejection is a
false negative) and changed in meaning (`renderings.CHANGED`: an acceptance is a false positive).
Both graders read the same golds and boxes; math-verify runs with its documented defaults,
``verify(parse(f"${gold}$"), parse(f"\boxed{{{answer}}}"))``. Answers of `STANDING` have the right
value as unevaluated arithmetic and are counted apart: the share that each grader accepts.
"""

import argparse
import json
import multiprocessing
import random
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as Expired
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pebble

from benchmarks.core.renderings import CHANGED, SAME, STANDING, Rule
from stepgrpo_core import last_box
from stepgrpo_core.savings.intervals import wilson
from training.grading import Grader

FILES = {
    "GSM8K": "gsm8k_test.jsonl",
    "MATH-500": "math500.jsonl",
    "MATH": "math_test5000.jsonl",
    "AIME24": "aime24.jsonl",
    "AIME25": "aime25.jsonl",
    "AMC23": "amc23.jsonl",
    "OlympiadBench": "olympiadbench.jsonl",
    "Minerva": "minerva.jsonl",
    "College Math": "college_math.jsonl",
}
KINDS: Mapping[str, tuple[Mapping[str, Rule], bool]] = {
    "false negatives": (SAME, True),
    "false positives": (CHANGED, False),
    "left standing, paid": (STANDING, False),
}
SECONDS = 30.0  # of wall time for one call of math-verify, which has its own limits


@dataclass(frozen=True, slots=True)
class Case:
    """One gold and one answer made from it."""

    benchmark: str
    kind: str
    rule: str
    gold: str
    answer: str


def golds_of(path: Path) -> list[str]:
    """Return the distinct golds of a benchmark's file."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    found = (_gold(row) for row in rows)
    return list(dict.fromkeys(gold for gold in found if gold))


def _gold(row: Mapping[str, Any]) -> str | None:
    if "answer" not in row:
        return last_box(row["solution"])
    text = str(row["answer"])
    if "####" in text:
        return text.rpartition("####")[2].strip()
    return re.sub(r"^\$([^$]*)\$$", r"\1", text.strip()).strip()


def cases_of(benchmark: str, golds: Sequence[str]) -> Iterator[Case]:
    """Yield every answer that the rules make from the golds."""
    for gold in golds:
        for kind, (rules, _) in KINDS.items():
            for name, rule in rules.items():
                answer = rule(gold)
                if answer is not None:
                    yield Case(benchmark, kind, name, gold, answer)


def ours(cases: Sequence[Case], workers: int) -> list[bool]:
    """Return our verdicts; unscored counts as not accepted."""
    boxes = [f"\\boxed{{{case.answer}}}" for case in cases]
    with Grader(workers=workers) as grader:
        verdicts = grader.grade(boxes, [case.gold for case in cases])
    return [verdict.correct is True for verdict in verdicts]


def theirs(cases: Sequence[Case], workers: int) -> list[bool]:
    """Return math-verify's verdicts; a call that does not return counts as not accepted."""
    context = multiprocessing.get_context("spawn")
    with pebble.ProcessPool(workers, context=context) as pool:
        futures = [
            pool.schedule(_default, args=(case.gold, case.answer), timeout=SECONDS)
            for case in cases
        ]
        return [_result(future) for future in futures]


def _result(future: Any) -> bool:
    try:
        return bool(future.result())
    except (Expired, pebble.ProcessExpired):
        return False


def _default(gold: str, answer: str) -> bool:
    from math_verify import parse, verify  # noqa: PLC0415

    golds = parse(gold if "$" in gold else f"${gold}$")
    return bool(verify(golds, parse(f"\\boxed{{{answer}}}")))


def table(cases: Sequence[Case], found: Mapping[str, Sequence[bool]]) -> str:
    """Return the Markdown table of both graders' errors by benchmark."""
    lines = [
        "| benchmark | kind | answers | ours | 95 % | math-verify | 95 % |",
        "|---|---|---:|---:|---|---:|---|",
    ]
    for benchmark in [*dict.fromkeys(case.benchmark for case in cases), "all"]:
        for kind, (_, wanted) in KINDS.items():
            places = [
                place
                for place, case in enumerate(cases)
                if case.kind == kind and benchmark in {case.benchmark, "all"}
            ]
            if not places:
                continue
            cells = [
                _share(sum(verdicts[place] != wanted for place in places), len(places))
                for verdicts in found.values()
            ]
            lines.append(f"| {benchmark} | {kind} | {len(places)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(errors: int, count: int) -> str:
    low, high = wilson(errors / count, count)
    return f"{errors} ({100 * errors / count:.1f} %) | {100 * low:.1f} to {100 * high:.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns 0, also when the data is absent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmarks' files")
    parser.add_argument("--sample", type=int, default=60, help="golds per benchmark; 0 for all")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--workers", type=int, default=2, help="processes of each grader")
    parser.add_argument("--errors", action="store_true", help="print our errors, too")
    options = parser.parse_args(arguments)
    present = {name: options.data / file for name, file in FILES.items()}
    present = {name: path for name, path in present.items() if path.is_file()}
    if not present:
        print(f"skipped: {options.data} holds none of {', '.join(FILES.values())}")
        return 0
    cases: list[Case] = []
    for name, path in present.items():
        golds = golds_of(path)
        if options.sample and len(golds) > options.sample:
            golds = random.Random(options.seed).sample(golds, options.sample)
        cases += cases_of(name, golds)
    verdicts = {"ours": ours(cases, options.workers), "theirs": theirs(cases, options.workers)}
    print(table(cases, verdicts))
    if options.errors:
        for case, accepted in zip(cases, verdicts["ours"], strict=True):
            if accepted != KINDS[case.kind][1]:
                print(case)
    return 0


if __name__ == "__main__":
    sys.exit(main())
