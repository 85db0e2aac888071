"""The page of the demo's results: table, differences between seeds, training paths, plot.

The seeds of a method are pooled: each of its models answered every problem once, and vanilla's one
answer is compared with each. Intervals are clustered by problem: they show the variation between
problems, and the column of seeds shows the variation between seeds.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.demo.equal import equal_tokens, shown
from training.demo.figure import draw
from training.demo.methods import METHODS
from training.demo.seeds import section
from training.evaluation.records import Record, read_archive, write_archive
from training.evaluation.statistics import Estimate, Summary, summarize
from training.files import write_text

__all__ = [
    "BASE",
    "EXITED",
    "ORIGIN",
    "Row",
    "archive_of",
    "equal_tokens_of",
    "figures",
    "page",
    "pooled",
    "read_rows",
    "read_ways",
    "without_records",
    "write_results",
]

BASE, EXITED = "demo-base", "demo-base+confidence"
NAMES = {"vanilla": BASE, "vanilla, exit policy `confidence`": EXITED} | {
    each.title: each.name for each in METHODS
}
"""Contender name in the files of a row, by the row's title."""
ORIGIN = ("versions", "hardware", "commit")

Seeds = Sequence[Sequence[Record]]
"""The records of each seed's model, on the same problems."""
Ways = Mapping[str, Mapping[int, Seeds]]
"""Seeds by method and optimizer step, in ascending order."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table."""

    title: str
    seeds: Seeds


def write_results(output: Path, rows: Sequence[Row], ways: Ways, made: Mapping[str, Any]) -> None:
    """Write results.json, results.md, results.png and the records; the first row is vanilla."""
    vanilla = rows[0].seeds[0]
    points = _points(ways, vanilla)
    start = [
        (0, summarize(_same(vanilla, seeds[0]))) for way in ways.values() for seeds in way.values()
    ]
    draw(
        {row.title: pooled(row.seeds, vanilla) for row in rows},
        {title: [*start[:1], *way] for title, way in points.items()},
        output / "results.png",
    )
    data = figures(rows, ways, made)
    write_text(output / "results.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    _write_records(output, rows, ways, made)
    write_text(output / "results.md", page(data, equal_tokens_of(ways, vanilla)))


def figures(rows: Sequence[Row], ways: Ways, made: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of results.json; the first row is vanilla."""
    vanilla = rows[0].seeds[0]
    return {
        "made": made,
        "rows": {
            row.title: {
                **dataclasses.asdict(pooled(row.seeds, vanilla)),
                "seeds": [dataclasses.asdict(summarize(each)) for each in row.seeds],
            }
            for row in rows
        },
        "ways": {
            title: {str(step): dataclasses.asdict(each) for step, each in way}
            for title, way in _points(ways, vanilla).items()
        },
    }


def page(data: Mapping[str, Any], equal: str, missing: Sequence[str] = ()) -> str:
    """Return the text of results.md from the content of results.json.

    `equal` is the section at equal tokens, and `missing` names archives that do not exist.
    """
    parts = [_head(data["made"], missing), _table(data["rows"]), section(data), _ways(data), equal]
    return "\n\n".join(filter(None, parts)) + "\n"


def archive_of(output: Path, title: str, seed: int, step: int | None = None) -> Path:
    """Return the archive of a row's seed, or of a checkpoint during its training."""
    place = "" if step is None else f"-step{step}"
    return output / "records" / f"{NAMES[title]}-s{seed}{place}.jsonl.gz"


def read_rows(output: Path, data: Mapping[str, Any]) -> list[Row]:
    """Return the rows of results.json whose records are all there."""
    paths = {title: _archives(output, title, row) for title, row in data["rows"].items()}
    return [
        Row(title, list(map(read_archive, each)))
        for title, each in paths.items()
        if all(path.exists() for path in each)
    ]


def read_ways(output: Path, data: Mapping[str, Any]) -> Ways:
    """Return the training paths of results.json; all of their records must be there."""
    return {
        title: {
            int(step): list(map(read_archive, _archives(output, title, each, int(step))))
            for step, each in way.items()
        }
        for title, way in data["ways"].items()
    }


def without_records(output: Path, data: Mapping[str, Any]) -> list[str]:
    """Return the names of all archives that do not exist."""
    paths = [path for title, row in data["rows"].items() for path in _archives(output, title, row)]
    for title, way in data["ways"].items():
        for step, each in way.items():
            paths += _archives(output, title, each, int(step))
    return [path.name for path in paths if not path.exists()]


def _archives(
    output: Path, title: str, pool: Mapping[str, Any], step: int | None = None
) -> list[Path]:
    """Return an archive for each seed in a pooled summary; each answered every question once."""
    seeds = pool["completions"] // pool["questions"]
    return [archive_of(output, title, seed, step) for seed in range(seeds)]


def _write_records(output: Path, rows: Sequence[Row], ways: Ways, made: Mapping[str, Any]) -> None:
    origin = {name: made[name] for name in ORIGIN}
    for row in rows:
        for seed, records in enumerate(row.seeds):
            write_archive(archive_of(output, row.title, seed), records, origin)
    for title, way in ways.items():
        for step, seeds in way.items():
            for seed, records in enumerate(seeds):
                write_archive(archive_of(output, title, seed, step), records, origin)


def pooled(seeds: Seeds, vanilla: Sequence[Record]) -> Summary:
    """Return one summary of all seeds' answers; vanilla's same answer is compared with each."""
    return summarize(_samples(seeds), _samples([vanilla] * len(seeds)))


def _points(ways: Ways, vanilla: Sequence[Record]) -> dict[str, list[tuple[int, Summary]]]:
    return {
        title: [(step, pooled(seeds, _same(vanilla, seeds[0]))) for step, seeds in way.items()]
        for title, way in ways.items()
    }


def _samples(seeds: Seeds) -> list[Record]:
    """Return every seed's answer to a problem as one sample; their texts were not compared."""
    return [
        dataclasses.replace(each, sample=seed, same_as=None)
        for seed, records in enumerate(seeds)
        for each in records
    ]


def _same(vanilla: Sequence[Record], records: Sequence[Record]) -> list[Record]:
    """Return vanilla's records on the problems of `records`."""
    asked = {each.question for each in records}
    return [each for each in vanilla if each.question in asked]


def _head(made: Mapping[str, Any], missing: Sequence[str]) -> str:
    hours = sum(made["seconds"].values()) / 3600
    versions = ", ".join(f"{name} {value}" for name, value in made["versions"].items())
    return f"""# What Step-GRPO saves on the demo world

To compare Step-GRPO with its ablations and with other methods, read the table; to make it
yourself, run the command below it (`make demo` makes a part of it in 15 minutes).

This is a demonstration in a world that was built to show the effect, after three worlds in which
it did not show ([log](LOG.md)). It is no evidence that the method wins in general.

Every method trains [demo-base](../models/demo-base/README.md) for {made["steps"]} steps of 64 \
completions (DEER+SFT: two
epochs), with the settings of `training/config/presets/demo-lora.yaml` and its own overlay in
`training/config/presets/methods/`. All models answer the same {made["problems"]} problems of \
the test split, which no training
set contains: T = 0.6, top_p 1, at most 900 tokens, float32, and no exit policy unless a row names
one. Differences are paired with vanilla; intervals are 95 % and clustered by problem
([method](algorithm.md#evaluation)). *Net* adds the tokens of probes.

Made by `{_command(made)}` at commit {made["commit"]}: {made["hardware"]}, {versions}; \
{hours:.1f} hours of jobs
with one thread each, two at once. An interrupted table continues with the same command.

{_records(made, missing)}"""


def _records(made: Mapping[str, Any], missing: Sequence[str]) -> str:
    """Return the paragraph on how the figures can be computed again."""
    if missing:
        return f"""Some of the [records](records) behind this page were not kept; \
`{_command(made)}`
makes all of them anew. `python -m benchmarks.savings.recompute` computes the figures of the \
other files and
fails where this page differs; with `--evaluate` it first evaluates the models in `models/` again.
Every file names the commit that made it."""
    return """The [records](records) of all completions, without their texts, give every figure of \
this
page: `python -m benchmarks.savings.recompute` computes them and fails where the page differs."""


def _command(made: Mapping[str, Any]) -> str:
    if "learning_rate" not in made:
        return "make demo" if made["reduced"] else "stepgrpo-train demo results"
    reduced = "--reduced " if made["reduced"] else ""
    return f"stepgrpo-train demo results {reduced}--learning-rate {made['learning_rate']}"


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    head = (
        *("method", "accuracy, %", "against vanilla, points", "tokens", "% of vanilla's tokens"),
        *("net, %", "steps", "seeds: accuracy, % / tokens"),
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for place, (title, row) in enumerate(rows.items()):
        versus = row["versus"]
        cells = (
            title,
            _shown(row["accuracy"]),
            _shown(versus["accuracy"], sign=True) if place else "",
            f"{row['tokens']['value']:.1f}",
            _shown(versus["ratio_of_means"]) if place else "100",
            f"{100 * versus['net_ratio_of_means']['value']:.1f}",
            f"{row['steps']:.2f}",
            _seeds(row["seeds"]) if len(row["seeds"]) > 1 else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n![Accuracy against tokens](results.png)"


def _shown(estimate: Mapping[str, float] | None, *, sign: bool = False) -> str:
    return shown(Estimate(**estimate) if estimate else None, 100, sign=sign)


def _seeds(seeds: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{100 * each['accuracy']['value']:.1f} / {each['tokens']['value']:.0f}"
        for each in seeds
        if each["accuracy"]
    )


def equal_tokens_of(ways: Ways, vanilla: Sequence[Record]) -> str:
    """Return the section on Step-GRPO against GRPO+LP; empty where one of them is missing."""
    found = {title.strip("*"): way for title, way in ways.items()}
    if not {"Step-GRPO", "GRPO+LP"} <= set(found):
        return ""
    ours, theirs = (
        {step: _samples(seeds) for step, seeds in found[name].items()}
        for name in ("Step-GRPO", "GRPO+LP")
    )
    seeds = next(iter(found["GRPO+LP"].values()))
    start = _samples([_same(vanilla, seeds[0])] * len(seeds))
    return equal_tokens(ours, {0: start, **theirs})


def _ways(data: Mapping[str, Any]) -> str:
    ways, problems = data["ways"], data["made"]["way_problems"]
    if not ways:
        return ""
    steps = dict.fromkeys(step for way in ways.values() for step in way)
    lines = [
        "## On the way",
        f"All seeds on the first {problems} problems: accuracy in %, and tokens.",
        "",
        f"| method | {' | '.join(f'{step} steps' for step in steps)} |",
        f"|---|{'---|' * len(steps)}",
    ]
    for title, way in ways.items():
        cells = (
            f"{100 * each['accuracy']['value']:.1f}, {each['tokens']['value']:.0f}"
            if each["accuracy"]
            else ""
            for each in way.values()
        )
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)
