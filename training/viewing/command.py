"""`stepgrpo-train show` and `stepgrpo-train compare`."""

import argparse
from pathlib import Path
from typing import TypeAlias

__all__ = ["add_commands"]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_commands(commands: Commands) -> None:
    """Add both commands to a parser's subcommands."""
    show = commands.add_parser(
        "show",
        help="Write a page of a GRPO run: its curves, and completions of every step.",
        description="Write a static page of a run, also while it trains: learning curves, and the "
        "completions that it has kept (shown_groups), with their cuts, rewards and verdicts.",
    )
    show.add_argument("output", type=Path, metavar="RUN", help="Output folder of the run.")
    show.add_argument(
        "--page", type=Path, metavar="FILE", help="Page to write. Default: show.html in RUN."
    )
    show.set_defaults(run=_show)
    compare = commands.add_parser(
        "compare",
        help="Compare two evaluations, or the completions of two GRPO runs, with intervals.",
        description="Compare B with A on the same questions and samples, or on the completions "
        "that two runs have kept for the same prompts at the same steps. Writes results.md, "
        "results.json and tradeoff.png.",
    )
    folder = "contender's folder in an evaluation, or output folder of a run"
    compare.add_argument("first", type=Path, metavar="A", help=f"Baseline: a {folder}.")
    compare.add_argument("second", type=Path, metavar="B", help="The other one, of the same kind.")
    compare.add_argument("--output", type=Path, required=True, help="Folder to write to.")
    compare.set_defaults(run=_compare)


def _show(args: argparse.Namespace) -> None:
    from training.viewing.show import write_page  # noqa: PLC0415 - matplotlib loads slowly

    page = args.page or args.output / "show.html"
    write_page(args.output, page)
    print(page)


def _compare(args: argparse.Namespace) -> None:
    from training.viewing.compare import compare  # noqa: PLC0415 - matplotlib and numpy

    compare(args.first, args.second, args.output)
    print((args.output / "results.md").read_text(encoding="utf-8"))
    print(f"{args.output}: results.md, results.json, tradeoff.png")
