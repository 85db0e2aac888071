"""The page of the demo's results: a table, what seeds differ by, ways through training, a plot.

A method's seeds are pooled: every problem was answered once by each of its models, and vanilla's
one answer is compared with each. Intervals are clustered by problem; they say what other problems
would change, and the column of seeds says what other seeds do.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.demo.equal import equal_tokens, shown
from training.demo.figure import draw
from training.demo.seeds import section
from training.evaluation.records import Record
from training.evaluation.statistics import Summary, summarise
from training.files import write_text

__all__ = ["Row", "write_results"]

Seeds = Sequence[Sequence[Record]]
"""The records of each seed's model, on the same problems."""
Ways = Mapping[str, Mapping[int, Seeds]]
"""By method and optimiser step, the last one at the end."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    title: str
    seeds: Seeds


def write_results(output: Path, rows: Sequence[Row], ways: Ways, made: Mapping[str, Any]) -> None:
    """Write results.json, results.md and results.png; the first row is vanilla."""
    vanilla = rows[0].seeds[0]
    summaries = {row.title: pooled(row.seeds, vanilla) for row in rows}
    points = {
        title: [(step, pooled(seeds, _same(vanilla, seeds[0]))) for step, seeds in way.items()]
        for title, way in ways.items()
    }
    start = [
        (0, summarise(_same(vanilla, seeds[0]))) for way in ways.values() for seeds in way.values()
    ]
    draw(
        summaries,
        {title: [*start[:1], *way] for title, way in points.items()},
        output / "results.png",
    )
    data = {
        "made": made,
        "rows": {
            title: {
                **dataclasses.asdict(summary),
                "seeds": [dataclasses.asdict(summarise(each)) for each in row.seeds],
            }
            for (title, summary), row in zip(summaries.items(), rows, strict=True)
        },
        "ways": {
            title: {str(step): dataclasses.asdict(each) for step, each in way}
            for title, way in points.items()
        },
    }
    write_text(output / "results.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    page = [
        _head(made),
        _table(rows, summaries),
        section(data),
        _ways(points, made),
        _equal_tokens(ways, vanilla),
    ]
    write_text(output / "results.md", "\n\n".join(filter(None, page)) + "\n")


def pooled(seeds: Seeds, vanilla: Sequence[Record]) -> Summary:
    """One summary of all seeds' answers; the same answer of vanilla stands against each."""
    return summarise(_samples(seeds), _samples([vanilla] * len(seeds)))


def _samples(seeds: Seeds) -> list[Record]:
    """Every seed's answer to a problem as one of its samples."""
    return [
        dataclasses.replace(each, sample=seed)
        for seed, records in enumerate(seeds)
        for each in records
    ]


def _same(vanilla: Sequence[Record], records: Sequence[Record]) -> list[Record]:
    """Vanilla on the problems of `records`."""
    asked = {each.question for each in records}
    return [each for each in vanilla if each.question in asked]


def _head(made: Mapping[str, Any]) -> str:
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
with one thread each, two at once. An interrupted table continues with the same command."""


def _command(made: Mapping[str, Any]) -> str:
    if "learning_rate" not in made:
        return "make demo" if made["reduced"] else "stepgrpo-train demo results"
    reduced = "--reduced " if made["reduced"] else ""
    return f"stepgrpo-train demo results {reduced}--learning-rate {made['learning_rate']}"


def _table(rows: Sequence[Row], summaries: Mapping[str, Summary]) -> str:
    head = (
        *("method", "accuracy, %", "against vanilla, points", "tokens", "% of vanilla's tokens"),
        *("net, %", "steps", "seeds: accuracy, % / tokens"),
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        each = summaries[row.title]
        is_vanilla = row is rows[0]
        versus = each.versus
        assert versus
        cells = (
            row.title,
            shown(each.accuracy, 100),
            "" if is_vanilla else shown(versus.accuracy, 100, sign=True),
            f"{each.tokens.value:.1f}",
            "100" if is_vanilla else shown(versus.ratio_of_means, 100),
            f"{100 * versus.net_ratio_of_means.value:.1f}",
            f"{each.steps:.2f}",
            _seeds(row) if len(row.seeds) > 1 else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n![Accuracy against tokens](results.png)"


def _seeds(row: Row) -> str:
    found = [summarise(each) for each in row.seeds]
    return ", ".join(
        f"{100 * each.accuracy.value:.1f} / {each.tokens.value:.0f}"
        for each in found
        if each.accuracy
    )


def _equal_tokens(ways: Ways, vanilla: Sequence[Record]) -> str:
    """Step-GRPO against GRPO+LP wherever both were."""
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


def _ways(points: Mapping[str, Sequence[tuple[int, Summary]]], made: Mapping[str, Any]) -> str:
    if not points:
        return ""
    steps = dict.fromkeys(step for way in points.values() for step, _ in way)
    lines = [
        "## On the way",
        f"All seeds on the first {made['way_problems']} problems: accuracy in %, and tokens.",
        "",
        f"| method | {' | '.join(f'{step} steps' for step in steps)} |",
        f"|---|{'---|' * len(steps)}",
    ]
    for title, way in points.items():
        cells = (
            f"{100 * each.accuracy.value:.1f}, {each.tokens.value:.0f}" if each.accuracy else ""
            for _, each in way
        )
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)
