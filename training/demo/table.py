"""The demo's result: methods trained from `demo-base`, measured on the same unseen problems.

Everything is a job: a training, or an evaluation behind it. What is done is kept; a table that was
stopped goes on where it was, and ends with the figures that it would have had.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.demo.jobs import Job, run_jobs
from training.demo.methods import METHODS, STEPS, Method, Run, runs_of
from training.demo.results import BASE, EXITED, Row, Ways, write_results
from training.evaluation.records import Record, read_head, read_records, records_file
from training.run.checkpoints import StopOnSignal

__all__ = ["Table", "jobs_of", "run_table"]

EVERY = 20  # optimiser steps between the checkpoints on a run's way


@dataclass(frozen=True, slots=True)
class Table:
    """What the table is made of."""

    output: Path
    base: Path
    """Folder of the model that every run starts from."""
    reduced: bool = False
    """Fewer methods, and one seed of each."""
    problems: int = 1_000
    """Unseen problems that everything is measured on."""
    way_problems: int = 500
    """For the checkpoints on the way."""
    learning_rate: float | None = None
    """Of every GRPO run; None: the preset's."""
    slots: int = 2
    """Jobs at once, with one thread each."""

    @property
    def runs(self) -> list[Run]:
        """The trainings."""
        return runs_of(reduced=self.reduced)

    @property
    def shown(self) -> list[Run]:
        """Those whose way is shown, too."""
        return [run for run in self.runs if run.method.way]

    @property
    def jobs(self) -> Path:
        """Where jobs keep their logs."""
        return self.output / "jobs"


def run_table(table: Table) -> None:
    """Train, evaluate and write results.json, results.md, results.png and records into the output.

    Raises ValueError when the output holds a table of other settings, and RunStopped when a job
    failed or a signal came.
    """
    _check_settings(table)
    jobs, stop = jobs_of(table), StopOnSignal(1)
    with stop.listening():
        run_jobs(jobs, slots=table.slots, stop=stop)
    seconds = {job.name: float(job.done.read_text(encoding="utf-8")) for job in jobs}
    write_results(
        table.output,
        _rows(table),
        _ways(table),
        made={**_settings(table), **_origin(table), "seconds": seconds},
    )
    print((table.output / "results.md").read_text(encoding="utf-8"))


def jobs_of(table: Table) -> list[Job]:
    """All jobs, in the order in which they should start."""
    trained = [
        _evaluation(table, run.name, {run.name: table.output / run.name}, table.problems)
        for run in table.runs
    ]
    ways = [
        _evaluation(table, f"way-{run.name}", _checkpoints(table, run), table.way_problems)
        for run in table.shown
    ]
    base = _evaluation(table, BASE, {BASE: table.base}, table.problems, "none", "confidence")
    return [*(_training(table, run) for run in table.runs), base, *trained, *ways]


def _training(table: Table, run: Run) -> Job:
    method, folder = run.method, table.output / run.name
    before = Run(_named(method.continues), run.seed).name if method.continues else None

    def copy() -> None:
        if before and not folder.exists():
            shutil.copytree(table.output / before, folder)

    return Job(
        f"train-{run.name}",
        _command(
            *(method.command, "--config", "demo-lora", "--config", method.overlay, "--resume"),
            *(f"model.name={table.base}", f"output={folder}", f"seed={run.seed}"),
            *(f"trl.max_steps={STEPS}", f"trl.save_steps={EVERY}", "trl.save_total_limit=null"),
            *_rate(table, method),
            *method.overrides,
        ),
        table.jobs,
        after=f"train-{before}" if before else None,
        prepare=copy,
    )


def _rate(table: Table, method: Method) -> list[str]:
    chosen = table.learning_rate is not None and method.command == "grpo"
    return [f"trl.learning_rate={table.learning_rate}"] if chosen else []


def _evaluation(
    table: Table, name: str, models: dict[str, Path], problems: int, *policies: str
) -> Job:
    """Evaluate models into a folder of their own; none is compared with another yet."""
    run = name.removeprefix("way-")
    return Job(
        f"eval-{name}",
        _command(
            *("eval", "--tasks", "demo", "--limit", str(problems), "--samples", "1"),
            *(f"--model={each}={path}" for each, path in models.items()),
            *(f"--baseline={next(iter(models))}", f"--output={table.output / 'eval' / name}"),
            *(f"--policy={policy}" for policy in policies),
        ),
        table.jobs,
        after=None if run == BASE else f"train-{run}",
    )


def _command(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "training.cli", *words)


def _named(name: str) -> Method:
    return next(each for each in METHODS if each.name == name)


def _checkpoints(table: Table, run: Run) -> dict[str, Path]:
    """Those on the way of a run by their steps; its end is evaluated anyway."""
    return {
        str(step): table.output / run.name / f"checkpoint-{step}"
        for step in range(EVERY, STEPS, EVERY)
    }


def _rows(table: Table) -> list[Row]:
    """Vanilla comes first: everything is compared with it."""
    base = [
        Row(title, [_records(table, BASE, name)])
        for title, name in (("vanilla", BASE), ("vanilla, exit policy `confidence`", EXITED))
    ]
    names = dict.fromkeys(run.method for run in table.runs)
    return base + [
        Row(
            method.title,
            [_records(table, run.name, run.name) for run in table.runs if run.method == method],
        )
        for method in METHODS
        if method in names
    ]


def _ways(table: Table) -> Ways:
    """For each method whose way is shown: optimiser steps and every seed's records there."""
    ways: dict[str, dict[int, list[Sequence[Record]]]] = {}
    for run in table.shown:
        way = ways.setdefault(run.method.title, {})
        for step in _checkpoints(table, run):
            found = _records(table, f"way-{run.name}", step)
            way.setdefault(int(step), []).append(found)
        end = _records(table, run.name, run.name)[: table.way_problems]  # one sample of each
        way.setdefault(STEPS, []).append(end)
    return ways


def _records(table: Table, folder: str, contender: str) -> list[Record]:
    return read_records(records_file(table.output / "eval" / folder, contender, "demo"))


def _origin(table: Table) -> dict[str, Any]:
    """Versions, hardware and commit of the first evaluation."""
    path = records_file(table.output / "eval" / BASE, BASE, "demo")
    made: dict[str, Any] = read_head(path)["made_with"]
    return made


def _settings(table: Table) -> dict[str, Any]:
    rate = {} if table.learning_rate is None else {"learning_rate": table.learning_rate}
    return {
        "base": str(table.base),
        "reduced": table.reduced,
        "problems": table.problems,
        "way_problems": table.way_problems,
        "steps": STEPS,
        **rate,
    }


def _check_settings(table: Table) -> None:
    path, wanted = table.output / "table.json", _settings(table)
    table.output.mkdir(parents=True, exist_ok=True)
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else wanted
    if found != wanted:
        raise ValueError(f"{path} says {found}, not {wanted}; use another --output")
    path.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
