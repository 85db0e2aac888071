"""The demo's table: methods trained from `demo-base` and measured on the same unseen problems.

Everything is a job: a training run, or an evaluation after it. Finished jobs are kept, so an
interrupted table resumes and ends with the same results.
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

EVERY = 20  # optimizer steps between the checkpoints of a run


@dataclass(frozen=True, slots=True)
class Table:
    """Settings of the table."""

    output: Path
    base: Path
    """Folder of the model that every run starts from."""
    reduced: bool = False
    """True for fewer methods, with one seed each."""
    problems: int = 1_000
    """Number of unseen problems for base and trained models."""
    way_problems: int = 500
    """Number of problems for intermediate checkpoints."""
    learning_rate: float | None = None
    """Learning rate of every GRPO run; None: the preset's."""
    slots: int = 2
    """Maximum number of parallel jobs, with one thread each."""

    @property
    def runs(self) -> list[Run]:
        """Return all training runs."""
        return runs_of(reduced=self.reduced)

    @property
    def shown(self) -> list[Run]:
        """Return the runs whose intermediate checkpoints are evaluated, too."""
        return [run for run in self.runs if run.method.way]

    @property
    def jobs(self) -> Path:
        """Return the folder of the jobs' logs."""
        return self.output / "jobs"


def run_table(table: Table) -> None:
    """Train, evaluate and write results.json, results.md, results.png and records into the output.

    Raises ValueError if the output holds a table with other settings, and RunStopped if a job
    failed or a signal arrived.
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
    """Return all jobs, in the order in which they should start."""
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
    """Return the job that evaluates models into their own folder, without comparing them with
    others."""
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
    """Return a run's intermediate checkpoints by step; its final model is evaluated separately."""
    return {
        str(step): table.output / run.name / f"checkpoint-{step}"
        for step in range(EVERY, STEPS, EVERY)
    }


def _rows(table: Table) -> list[Row]:
    """Return the rows; vanilla is first, because the others are compared with it."""
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
    """Return each method's training path: every seed's records by optimizer step."""
    ways: dict[str, dict[int, list[Sequence[Record]]]] = {}
    for run in table.shown:
        way = ways.setdefault(run.method.title, {})
        for step in _checkpoints(table, run):
            found = _records(table, f"way-{run.name}", step)
            way.setdefault(int(step), []).append(found)
        end = _records(table, run.name, run.name)[: table.way_problems]  # one per problem
        way.setdefault(STEPS, []).append(end)
    return ways


def _records(table: Table, folder: str, contender: str) -> list[Record]:
    return read_records(records_file(table.output / "eval" / folder, contender, "demo"))


def _origin(table: Table) -> dict[str, Any]:
    """Return versions, hardware and commit of the first evaluation."""
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
