"""`stepgrpo-train calibrate-exit`: choose the threshold of policy `confidence` by its risk."""

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stepgrpo_core import ExitSettings
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.risk import (
    LOSSES,
    Selection,
    Thresholds,
    Trace,
    calibrated_settings,
    questions_needed,
    select_threshold,
)
from training.calibrate_command import (
    add_sampling_flags,
    check_counts,
    check_sampling,
    check_writable,
    context_length,
)
from training.config.families import add_flags, choice_of
from training.data.prompts import add_prompt_flags, prompt_template_of, read_prompts
from training.data.sources import Row, Source, read_source
from training.files import write_text

__all__ = ["THRESHOLDS", "add_arguments", "run"]

DEFAULT = " Default: %(default)s."
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add = parser.add_argument
    add("--model", required=True, help="Directory or hub name of a model, or of an adapter.")
    add(
        "--questions",
        type=Path,
        help="File of problems with the columns prompt and answer: .jsonl, .json, .csv, .parquet.",
    )
    add(
        "--prompts",
        type=Path,
        help='File of user messages, a {"prompt": "..."} per line, for --risk changed, which needs '
        "no answers.",
    )
    add("--demo", type=int, metavar="N", help="Use N validation problems of the demo world.")
    add(
        "--output", type=Path, required=True, help="YAML file for stepgrpo-serve --exit-thresholds."
    )
    add(
        "--risk",
        choices=LOSSES,
        default="lost",
        help="Share of questions that are right in full and wrong after an exit (lost), or whose "
        f"answer an exit changes (changed).{DEFAULT}",
    )
    add("--epsilon", type=float, default=0.05, help=f"Largest risk, from 0 to 1.{DEFAULT}")
    add(
        "--delta",
        type=float,
        default=0.1,
        help=f"Probability that the risk is larger after all.{DEFAULT}",
    )
    add(
        "--thresholds",
        type=float,
        nargs="+",
        default=THRESHOLDS,
        help=f"Thresholds to test; the highest is tested first.{DEFAULT}",
    )
    add_sampling_flags(parser)
    add_prompt_flags(parser)
    add_flags(parser)


def run(args: argparse.Namespace) -> None:
    """Record traces, choose the threshold and write it, its figures and a plot.

    Raises InvalidSetting for settings that cannot work, and ValueError if no threshold is valid.
    """
    rows = _checked(args)
    needed = questions_needed(args.epsilon, args.delta)
    print(f"{len(rows)} questions; without one failure {needed} prove a risk of {args.epsilon:g}")
    traces, settings, conditions = _record(args, rows)
    found = select_threshold(
        traces, args.thresholds, loss=args.risk, epsilon=args.epsilon, delta=args.delta
    )
    print(*table(found), sep="\n")
    _write_figures(args.output, found, traces)
    if found.chosen is None:
        raise ValueError(
            f"no threshold has a proved risk of {args.epsilon:g}: use --epsilon "
            f"{found.least_epsilon:.3f} or more, or more questions"
        )
    write_text(args.output, as_file(found, settings, conditions))
    plot = args.output.with_suffix(".png")
    print(f"{args.output}: threshold {found.chosen.threshold:g}; see {plot}")


def _checked(args: argparse.Namespace) -> list[Row]:
    """Return the questions; everything is checked before the model is loaded."""
    if sum(each is not None for each in (args.questions, args.prompts, args.demo)) != 1:
        raise ValueError("pass exactly one of --questions, --prompts and --demo")
    if args.prompts is not None and args.risk == "lost":
        remedy = "it needs answers: pass --questions, or use --risk changed"
        raise InvalidSetting("--risk", args.risk, remedy)
    check_counts(args, "demo", "max_tokens")
    check_sampling(args)
    for each in args.thresholds:
        if not 0 < each < 1:
            raise InvalidSetting("--thresholds", each, "use numbers between 0 and 1")
    needed = questions_needed(args.epsilon, args.delta)
    check_writable(args.output)
    rows = _rows(args)
    if len({row.prompt for row in rows}) < needed:
        remedy = f"a risk of {args.epsilon:g} needs {needed} questions or more, or a larger epsilon"
        raise InvalidSetting("questions", len(rows), remedy)
    return rows


def _rows(args: argparse.Namespace) -> list[Row]:
    if args.prompts is not None:
        prompts = read_prompts(args.prompts)
        return [Row(each, "", str(args.prompts), line) for line, each in enumerate(prompts, 1)]
    if args.demo is not None:
        return list(read_source(Source(demo=args.demo, demo_split="validation")))
    return list(read_source(Source(path=str(args.questions))))


def _record(
    args: argparse.Namespace, rows: Sequence[Row]
) -> tuple[list[Trace], ExitSettings, dict[str, Any]]:
    """Return traces, the settings of their exits, and model, template and sampling."""
    from vllm import SamplingParams  # noqa: PLC0415 - slow to load

    from training.exits.conditions import conditions_of, settings_of  # noqa: PLC0415
    from training.exits.traces import record_traces  # noqa: PLC0415
    from training.rollouts.offline import Engine  # noqa: PLC0415
    from training.run.adapters import as_model  # noqa: PLC0415

    choice, template = choice_of(args), prompt_template_of(args)
    longest = context_length(args.model, [row.prompt for row in rows], template, args.max_tokens)
    params = SamplingParams(
        temperature=args.temperature, top_p=args.top_p, max_tokens=args.max_tokens
    )
    with as_model(args.model) as path:
        engine = Engine.load(
            path, dtype=args.dtype, max_model_len=longest, choice=choice, prompts=template
        )
    conditions = conditions_of(engine, args.model, params)
    settings, gold = ExitSettings(policy="confidence"), args.prompts is None
    traces = record_traces(engine, rows, settings, params, thresholds=args.thresholds, gold=gold)
    return traces, settings_of(engine, settings), conditions


def table(found: Selection) -> list[str]:
    """Return the candidates as lines of a Markdown table."""
    head = f"| threshold | {found.loss} | at most | tokens left | valid |"
    return [
        head,
        "|---|---|---|---|---|",
        *(
            f"| {each.threshold:g} | {each.risk:.1%} | {each.bound:.1%} | {each.tokens_left:.1%} "
            f"| {'yes' if each.valid else 'no'} |"
            for each in found.candidates
        ),
    ]


def as_file(found: Selection, settings: ExitSettings, conditions: Mapping[str, Any]) -> str:
    """Return the file for the server: the chosen threshold, its guarantee and its conditions."""
    chosen = found.chosen
    assert chosen is not None
    made = Thresholds(
        risk=found.loss,
        epsilon=found.epsilon,
        delta=found.delta,
        questions=found.questions,
        observed=chosen.risk,
        tokens_left=chosen.tokens_left,
        settings=calibrated_settings(dataclasses.replace(settings, threshold=chosen.threshold)),
        **conditions,
    )
    meaning = {
        "lost": "questions that are right in full and wrong after an exit",
        "changed": "questions whose answer an exit changes",
    }[found.loss]
    return (
        f"# With probability {1 - found.delta:g} over the draw of {found.questions} questions, at "
        f"most {found.epsilon:.1%} of\n# {meaning}, for this model, chat template\n"
        "# and sampling, and for questions like these.\n"
        f"{yaml.safe_dump(made.as_dict(), sort_keys=False, allow_unicode=True)}"
    )


def _write_figures(output: Path, found: Selection, traces: Sequence[Trace]) -> None:
    figures: dict[str, Any] = {
        **dataclasses.asdict(found),
        "traces": [dataclasses.asdict(each) for each in traces],
    }
    write_text(output.with_suffix(".json"), json.dumps(figures) + "\n")
    from training.exits.plot import draw_risk  # noqa: PLC0415 - slow to load

    draw_risk(found, output.with_suffix(".png"))
