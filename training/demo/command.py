"""`stepgrpo-train demo`: train the base model of the demo world, or every method on it."""

import argparse
from pathlib import Path
from typing import TypeAlias

from stepgrpo_core.errors import InvalidSetting
from training.calibrate_command import DEFAULT, check_counts
from training.run.lock import locked

__all__ = ["add_commands"]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_commands(commands: Commands) -> None:
    """Add the commands `base` and `results`."""
    _add_base(commands)
    _add_results(commands)


def _add_base(commands: Commands) -> None:
    base = commands.add_parser(
        "base",
        help="Train demo-base from scratch and measure it.",
        description="Train demo-base from scratch, measure it on unseen problems, calibrate it "
        "and write its model card. The same command resumes a stopped run.",
    )
    base.add_argument(
        "--output", type=Path, default=Path("outputs/demo"), help=f"Folder to write to.{DEFAULT}"
    )
    base.add_argument(
        "--steps", type=int, help="Optimizer steps of the first stage. Default: the recipe's."
    )
    base.add_argument("--seed", type=int, default=0, help=f"Seed of weights and traces.{DEFAULT}")
    base.add_argument(
        "--problems", type=int, default=1000, help=f"Unseen problems to measure on.{DEFAULT}"
    )
    base.set_defaults(run=_base)


def _add_results(commands: Commands) -> None:
    results = commands.add_parser(
        "results",
        help="Train every method from demo-base and compare them.",
        description="Train Step-GRPO, its ablations and the other methods from demo-base, evaluate "
        "all on the same unseen problems, and write a table and a plot. The same command resumes a "
        "stopped table and keeps what is finished.",
    )
    results.add_argument(
        "--output", type=Path, default=Path("outputs/results"), help=f"Folder to write to.{DEFAULT}"
    )
    results.add_argument(
        "--base",
        type=Path,
        default=Path("models/demo-base"),
        help=f"Model from which all trainings start.{DEFAULT}",
    )
    results.add_argument(
        "--reduced", action="store_true", help="Train Step-GRPO and GRPO+LP only, one seed of each."
    )
    results.add_argument(
        "--problems", type=int, default=1000, help=f"Unseen problems to answer.{DEFAULT}"
    )
    results.add_argument(
        "--learning-rate",
        type=float,
        help="Learning rate of every GRPO run. Default: the preset's, 1e-3.",
    )
    results.add_argument(
        "--slots", type=int, default=2, help=f"Jobs at once, one thread each.{DEFAULT}"
    )
    results.set_defaults(run=_results)


def _base(args: argparse.Namespace) -> None:
    from training.demo.pipeline import run_demo  # noqa: PLC0415 - torch and vLLM load slowly

    check_counts(args, "steps", "problems")
    with locked(args.output):
        run_demo(args.output, seed=args.seed, steps=args.steps, problems=args.problems)


def _results(args: argparse.Namespace) -> None:
    from training.demo.table import Table, run_table  # noqa: PLC0415 - torch loads slowly
    from training.run.models import check_model  # noqa: PLC0415

    check_counts(args, "problems", "slots")
    if args.learning_rate is not None and not args.learning_rate > 0:
        raise InvalidSetting("--learning-rate", args.learning_rate, "use a number above 0")
    check_model(str(args.base), "--base")
    table = Table(
        args.output,
        args.base,
        reduced=args.reduced,
        learning_rate=args.learning_rate,
        problems=args.problems,
        way_problems=min(args.problems, 500),
        slots=args.slots,
    )
    with locked(args.output):
        run_table(table)
