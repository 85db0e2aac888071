"""`stepgrpo-train eval`: contenders from flags, their evaluation, and the report."""

import argparse
import dataclasses
import datetime
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepgrpo_core import POLICIES, ExitSettings, InvalidSetting, build_policy, load_policies
from training.config.families import add_flags, choice_of
from training.config.layers import InvalidConfig, merge, parse_override
from training.config.schema import GradingConfig, load_config, prompt_template
from training.config.typed import build
from training.data.prompts import PromptTemplate, add_prompt_flags, prompt_template_of
from training.evaluation.records import Contender, EngineSettings, Record, read_head, read_records
from training.evaluation.tasks import (
    TASKS,
    Draws,
    Question,
    Task,
    draws_of,
    load_task,
    read_tasks,
    task_of,
)
from training.rollouts.patterns import matcher_of
from training.rollouts.probes import check_judge
from training.run.lock import locked

__all__ = ["add_arguments", "contenders_of", "exit_of", "run"]

GIVEN = ("samples", "temperature", "top_p", "top_k", "max_tokens")
"""Sampling flags that apply to all tasks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add = parser.add_argument
    add(
        "--model",
        action="append",
        required=True,
        metavar="[NAME=]PATH",
        help="Directory or hub name of a model; repeat to compare several.",
    )
    add(
        "--baseline",
        required=True,
        metavar="[NAME=]PATH",
        help="Model that every row is compared with: NAME of a --model, or another one.",
    )
    add(
        "--baseline-policy",
        default="none",
        metavar="POLICY[:KEY=VALUE,...]",
        help="Exit policy of the baseline. Default: none.",
    )
    add(
        "--policy",
        action="append",
        metavar="POLICY[:KEY=VALUE,...]",
        help="Exit policy with fields of ExitSettings, such as confidence:threshold=0.9; repeat "
        f"to evaluate every model under each. Policies: {', '.join(POLICIES)}. Default: none.",
    )
    add(
        "--tasks",
        required=True,
        help=f"Tasks, separated by commas: {', '.join(TASKS)}, those of --task-file, or your own: "
        "package.module:name of a Task, or an entry point in group stepgrpo.tasks.",
    )
    add(
        "--task-file",
        type=Path,
        metavar="FILE",
        help="YAML file of more tasks, from name to source, samples, suffix, choices, by, grader, "
        "sampling.",
    )
    add(
        "--output",
        type=Path,
        required=True,
        help="Folder to write to; the same command goes on in it.",
    )
    add("--limit", type=int, metavar="N", help="Use only the first N questions of every task.")
    add(
        "--data",
        action="append",
        default=[],
        metavar="TASK=PATH",
        help="Read a task from a file (.jsonl, .json, .csv, each also .gz, or .parquet) in its hub "
        "columns, or from a directory laid out as the hub's data set.",
    )
    add("--keep-completions", action="store_true", help="Store the texts, too.")
    _add_sampling(parser)
    _add_engine(parser)
    add_prompt_flags(parser)
    add_flags(parser)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    samples = ", ".join(f"{name} {task.samples}" for name, task in TASKS.items())
    limits = {name: task.sampling.max_tokens for name, task in TASKS.items()}
    add("--samples", type=int, metavar="K", help=f"Completions per question. Default: {samples}.")
    add("--temperature", type=float, help="Temperature of the sampling. Default: 0.6.")
    add(
        "--top-p",
        type=float,
        help="Share of the probability that is sampled from. Default: 0.95; demo 1.",
    )
    add(
        "--top-k",
        type=int,
        help="Most likely tokens that are sampled from; 0: all. Default: 20; demo 0.",
    )
    add(
        "--max-tokens",
        type=int,
        help=f"Tokens of a completion, at most. Default: {limits['gsm8k']}; demo {limits['demo']}.",
    )
    add(
        "--sampling",
        action="append",
        default=[],
        metavar="TASK:KEY=VALUE,...",
        help="Sampling of one task, over the flags above: samples, max_tokens, temperature, top_p, "
        "top_k, min_p, repetition_penalty; repeat for several tasks.",
    )
    add(
        "--dtype",
        help="Data type of the weights, as vLLM's. Default: auto, which makes bfloat16 of float32; "
        "demo float32.",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="Seed of all draws; each completion has its own of it. Default: 0.",
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--tensor-parallel-size",
        type=int,
        default=1,
        metavar="N",
        help="GPUs over which the engine is spread. Default: 1.",
    )
    add(
        "--gpu-memory-utilization",
        type=float,
        metavar="SHARE",
        help="Share of each GPU's memory for the engine. Default: vLLM's.",
    )
    add(
        "--server",
        metavar="URL",
        help="Complete on this stepgrpo-serve, which serves every --model under its NAME, instead "
        "of loading an engine; PATH is still read for tokenizer and weights' digest. Start it with "
        "--logprobs-mode processed_logprobs.",
    )
    add(
        "--api-key",
        metavar="KEY",
        help="API key of --server. Default: OPENAI_API_KEY, which, unlike a flag, is hidden from "
        "other users of the machine. No log or report contains the key.",
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """Tasks, questions and sampling by task, equal for all contenders."""

    tasks: Mapping[str, Task]
    questions: Mapping[str, Sequence[Question]]
    draws: Mapping[str, Draws]


def run(args: argparse.Namespace) -> None:
    """Run or resume the evaluation, and write the report."""
    if args.limit is not None and args.limit < 1:
        raise InvalidSetting("limit", args.limit, "use 1 or more")
    contenders, baseline = contenders_of(
        args.model, args.policy or ["none"], args.baseline, args.baseline_policy
    )
    family = choice_of(args)
    prompts = prompt_template_of(args)
    _engine(args)  # raises for invalid settings before anything is loaded
    contenders = [dataclasses.replace(each, family=family) for each in contenders]
    asked = _asked(args)
    from training.run.models import check_model  # noqa: PLC0415 - transformers loads slowly

    for each in dict.fromkeys(contender.model for contender in contenders):
        check_model(each, "model", adapters=True)
        _tell_other_prompts(each, prompts)
    with locked(args.output):
        _evaluate(args, contenders, baseline, asked)


def _tell_other_prompts(model: str, prompts: PromptTemplate) -> None:
    """Print a message if a run's model is evaluated with other prompts than it was trained with."""
    path = Path(model) / "config.yaml"
    if not path.is_file():
        return
    try:
        trained = prompt_template(load_config([path]))
    except InvalidConfig:
        return  # not a run's configuration, or one of another version
    if trained != prompts:
        print(f"{model} was trained with {trained}, and is asked with {prompts}", flush=True)


def _engine(args: argparse.Namespace) -> EngineSettings:
    if args.api_key is not None and args.server is None:
        raise InvalidSetting("--api-key", "(not shown)", "it belongs to --server: name one")
    key = args.api_key or os.environ.get("OPENAI_API_KEY")
    memory = args.gpu_memory_utilization
    return EngineSettings(args.tensor_parallel_size, memory, args.server, key)


def _asked(args: argparse.Namespace) -> _Asked:
    names = list(dict.fromkeys(filter(None, (each.strip() for each in args.tasks.split(",")))))
    if not names:
        raise InvalidSetting("tasks", args.tasks, f"name some of {', '.join(TASKS)}")
    known = read_tasks(args.task_file)
    tasks = {name: task_of(name, known) for name in names}
    for task in tasks.values():
        GradingConfig(grader=task.grader)  # raises if its name leads to no function
    data, own = _data(args.data, names), _sampling(args.sampling, names)
    given = {name: getattr(args, name) for name in GIVEN}
    draws = {name: draws_of(name, tasks=tasks, own=own.get(name), **given) for name in names}
    questions = {
        name: load_task(name, tasks=tasks, limit=args.limit, data=data.get(name), seed=args.seed)
        for name in names
    }
    return _Asked(tasks, questions, draws)


def _evaluate(
    args: argparse.Namespace, contenders: Sequence[Contender], baseline: str, asked: _Asked
) -> None:
    from training.evaluation.failures import write_failures  # noqa: PLC0415
    from training.evaluation.report import write_report  # noqa: PLC0415 - matplotlib and numpy
    from training.evaluation.run import complete_all, plan  # noqa: PLC0415 - torch loads slowly
    from training.run.checkpoints import StopOnSignal  # noqa: PLC0415

    started = time.monotonic()
    works = plan(
        contenders,
        asked.questions,
        asked.draws,
        args.output,
        dtype=args.dtype,
        seed=args.seed,
        limit=args.limit,
        prompts=prompt_template_of(args),
        table=asked.tasks,
        engine=_engine(args),
    )
    stop = StopOnSignal(1)
    with stop.listening():
        complete_all(works, keep_completions=args.keep_completions, stop=stop)
    records: dict[str, dict[str, list[Record]]] = {each.name: {} for each in contenders}
    heads: dict[str, dict[str, Any]] = {each.name: {} for each in contenders}
    for work in works:
        records[work.contender.name][work.task] = read_records(work.path, work.settings)
        heads[work.contender.name][work.task] = read_head(work.path)
    seconds = round(time.monotonic() - started, 1)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_report(
        args.output,
        records,
        baseline=baseline,
        heads=heads,
        run={"date": now, "seconds": seconds},
    )
    write_failures(args.output / "failures.html", records, asked.questions)
    print((args.output / "results.md").read_text(encoding="utf-8"))
    print(f"{args.output}: results.md, results.json, tradeoff.png, failures.html")


def contenders_of(
    models: Sequence[str], policies: Sequence[str], baseline: str, baseline_policy: str
) -> tuple[list[Contender], str]:
    """Return every model under every policy, after the baseline; and the baseline's name.

    The baseline is evaluated once, even if it is also one of the contenders. Raises InvalidSetting.
    """
    paths = dict(map(_named, models))
    if len(paths) < len(models):
        raise InvalidSetting("model", models, "two have one name; use NAME=PATH")
    name, path = (baseline, paths[baseline]) if baseline in paths else _named(baseline)
    if paths.setdefault(name, path) != path:
        raise InvalidSetting("baseline", baseline, f"{name} names another --model; use NAME=PATH")
    base = _contender(name, path, baseline_policy)
    found = {base.name: base}
    for model in map(_named, models):
        for policy in policies:
            each = _contender(*model, policy)
            found.setdefault(each.name, each)
    return list(found.values()), base.name


def _named(text: str) -> tuple[str, str]:
    """Return name and path from ``[NAME=]PATH``."""
    name, equals, path = text.partition("=")
    if equals and name and path and not Path(text).exists():
        return name, path
    return Path(text).resolve().name if Path(text).exists() else text.rpartition("/")[2], text


def _contender(name: str, path: str, policy: str) -> Contender:
    """Return a contender with the name of its model, followed by its policy unless that is none."""
    full = name if policy == "none" else f"{name}+{policy}"
    return Contender(full, path, exit_of(policy), served=name)


def exit_of(text: str) -> ExitSettings:
    """Return the settings in ``POLICY[:KEY=VALUE,...]``; values are YAML. Raises InvalidSetting and
    InvalidConfig."""
    policy, _, rest = text.partition(":")
    if not POLICIES.keys() >= set(policy.split("+")):  # package.module:name has a colon, too
        policy, rest = [*re.split(r":(?=[a-z_]+=)", text, maxsplit=1), ""][:2]
    parts = re.split(r",(?=[a-z_]+=)", rest) if rest else []
    values = merge(map(parse_override, parts))
    settings: ExitSettings = build(ExitSettings, {**values, "policy": policy}, ("policy",))
    check_judge(settings)
    load_policies(policy)
    build_policy(settings, matcher_of(settings))  # raises for an unknown name
    return settings


def _data(given: Sequence[str], tasks: Sequence[str]) -> dict[str, str]:
    found = {}
    for each in given:
        name, _, path = each.partition("=")
        if name not in tasks or not path:
            raise InvalidSetting("data", each, f"write TASK=PATH, TASK one of {', '.join(tasks)}")
        found[name] = path
    return found


def _sampling(given: Sequence[str], tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the sampling of single tasks; values are YAML."""
    found: dict[str, dict[str, Any]] = {}
    for each in given:
        name, colon, rest = each.rpartition(":")
        if not colon or name not in tasks:
            remedy = f"write TASK:KEY=VALUE,..., TASK one of {', '.join(tasks)}"
            raise InvalidSetting("sampling", each, remedy)
        found.setdefault(name, {}).update(merge(map(parse_override, rest.split(","))))
    return found
