"""`stepgrpo-train calibrate-exit`: choose the threshold of an exit policy by its risk."""

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stepgrpo_core import ExitSettings
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.fingerprint import text_fingerprint
from stepgrpo_core.risk import (
    LOSSES,
    Run,
    Selection,
    Thresholds,
    calibrated_settings,
    questions_needed,
    select,
)
from training.calibrate_command import (
    DEFAULT,
    add_sampling_flags,
    check_counts,
    check_sampling,
    check_writable,
    context_length,
)
from training.config.families import add_flags, choice_of
from training.data.prompts import add_prompt_flags, prompt_template_of, read_prompts
from training.data.sources import Row, Source, read_source
from training.exits.report import chosen_of, table, write_figures
from training.exits.store import Recorded, TraceFile
from training.exits.sweeps import BOTH, SWEEPS, THRESHOLDS, Sweep, sweep_of
from training.files import write_text

__all__ = ["add_arguments", "run"]

BATCH = 64  # questions between two writes of the traces


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
    add("--output", type=Path, required=True, help="File for stepgrpo-serve --exit-thresholds.")
    add(
        "--resume",
        action="store_true",
        help="Go on from the traces of a calibration that was killed, beside the output.",
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
        "--policies",
        nargs="+",
        choices=SWEEPS,
        default=["confidence"],
        metavar="POLICY",
        help="Policies that compete, each tested at delta divided by their number; the cheapest "
        f"with a proved threshold is chosen. Choices: {', '.join(SWEEPS)}.{DEFAULT}",
    )
    add(
        "--thresholds",
        type=float,
        nargs="+",
        default=THRESHOLDS,
        help=f"Thresholds of policy confidence to test; the highest is tested first.{DEFAULT}",
    )
    add(
        "--give-up-tokens",
        type=int,
        help=f"Reasoning tokens after which {BOTH} gives up, chosen before any figures. Default: "
        "none.",
    )
    add_sampling_flags(parser)
    add_prompt_flags(parser)
    add_flags(parser)


def run(args: argparse.Namespace) -> None:
    """Record traces, choose the threshold and write it, its figures and a plot.

    Raises InvalidSetting for settings that cannot work, and ValueError if no threshold is valid.
    """
    rows = _checked(args)
    delta = args.delta / len(args.policies)
    needed = questions_needed(args.epsilon, delta)
    print(f"{len(rows)} questions; without one failure {needed} prove a risk of {args.epsilon:g}")
    sweeps = [sweep_of(each, args.thresholds, args.give_up_tokens) for each in args.policies]
    runs, family, conditions = _record(args, rows, sweeps)
    found = {
        sweep.policy: select(
            [Run(each.question, each.tokens, each.exits[sweep.policy]) for each in runs],
            sweep.thresholds,
            loss=args.risk,
            epsilon=args.epsilon,
            delta=delta,
        )
        for sweep in sweeps
    }
    print(*table(found), sep="\n")
    write_figures(args.output, found, runs)
    policy = chosen_of(found)
    if policy is None:
        least = min(each.least_epsilon for each in found.values())
        raise ValueError(
            f"no threshold has a proved risk of {args.epsilon:g}: use --epsilon {least:.3f} or "
            "more, or more questions"
        )
    chosen = found[policy].chosen
    assert chosen is not None
    sweep = sweeps[args.policies.index(policy)]
    settings = dataclasses.replace(sweep.at(chosen.threshold), **family)
    changed = _upper_bound_of_changes(args, runs, policy, sweep.thresholds.index(chosen.threshold))
    write_text(args.output, as_file(args, found[policy], settings, conditions, changed))
    plot = args.output.with_suffix(".png")
    print(f"{args.output}: {policy}, {sweep.name} {chosen.threshold}; see {plot}")


def _checked(args: argparse.Namespace) -> list[Row]:
    """Return the questions; everything is checked before the model is loaded."""
    if sum(each is not None for each in (args.questions, args.prompts, args.demo)) != 1:
        raise ValueError("pass exactly one of --questions, --prompts and --demo")
    if args.prompts is not None and args.risk == "lost":
        remedy = "it needs answers: pass --questions, or use --risk changed"
        raise InvalidSetting("--risk", args.risk, remedy)
    check_counts(args, "demo", "max_tokens", "give_up_tokens")
    if (BOTH in args.policies) != (args.give_up_tokens is not None):
        remedy = f"it belongs to --policies {BOTH}: pass both or none"
        raise InvalidSetting("--give-up-tokens", args.give_up_tokens, remedy)
    check_sampling(args)
    for each in args.thresholds:
        if not 0 < each < 1:
            raise InvalidSetting("--thresholds", each, "use numbers between 0 and 1")
    if len(set(args.policies)) < len(args.policies):
        raise InvalidSetting("--policies", " ".join(args.policies), "name each policy once")
    needed = questions_needed(args.epsilon, args.delta / len(args.policies))
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
    args: argparse.Namespace, rows: Sequence[Row], sweeps: Sequence[Sweep]
) -> tuple[list[Recorded], dict[str, str], dict[str, Any]]:
    """Return the recorded runs, the texts of the family, and model, template and sampling."""
    from vllm import SamplingParams  # noqa: PLC0415 - slow to load

    from training.exits.conditions import conditions_of, texts_of  # noqa: PLC0415
    from training.exits.traces import RememberingEngine, record  # noqa: PLC0415
    from training.run.adapters import as_model  # noqa: PLC0415

    choice, template = choice_of(args), prompt_template_of(args)
    longest = context_length(args.model, [row.prompt for row in rows], template, args.max_tokens)
    params = SamplingParams(
        temperature=args.temperature, top_p=args.top_p, max_tokens=args.max_tokens
    )
    with as_model(args.model) as path:
        engine = RememberingEngine.load(
            path, dtype=args.dtype, max_model_len=longest, choice=choice, prompts=template
        )
    conditions = conditions_of(engine, args.model, params)
    recorded = {
        **conditions,
        "max_tokens": args.max_tokens,
        "dtype": args.dtype,
        "prompts": dataclasses.asdict(template),
        "questions": text_fingerprint(json.dumps([[row.prompt, row.answer] for row in rows])),
        "sweeps": [dataclasses.asdict(each) for each in sweeps],
    }
    file = TraceFile(args.output.with_suffix(".traces.jsonl"), recorded, resume=args.resume)
    began, before = time.monotonic(), len(file.runs)
    for start in range(before, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        file.add(record(engine, batch, sweeps, params, gold=args.prompts is None))
        done = len(file.runs)
        left = (time.monotonic() - began) / (done - before) * (len(rows) - done)
        print(f"{done} of {len(rows)} questions, about {left:.0f} s left", flush=True)
    return file.runs, texts_of(engine), conditions


def _upper_bound_of_changes(
    args: argparse.Namespace, runs: Sequence[Recorded], policy: str, index: int
) -> float:
    """Return the upper bound of the share of changed answers at one candidate of a policy."""
    if args.risk == "changed":
        return float(args.epsilon)
    chosen = [Run(each.question, each.tokens, (each.exits[policy][index],)) for each in runs]
    found = select(chosen, [index], loss="changed", epsilon=args.epsilon, delta=args.delta)
    return found.candidates[0].bound


def as_file(
    args: argparse.Namespace,
    found: Selection,
    settings: ExitSettings,
    conditions: Mapping[str, Any],
    most_changed: float,
) -> str:
    """Return the file for the server: the chosen threshold, its guarantee and its conditions."""
    chosen = found.chosen
    assert chosen is not None
    made = Thresholds(
        risk=found.loss,
        epsilon=found.epsilon,
        delta=args.delta,
        questions=found.questions,
        observed=chosen.risk,
        most_changed=most_changed,
        tokens_left=chosen.tokens_left,
        settings=calibrated_settings(settings),
        **conditions,
    )
    meaning = {
        "lost": "questions that are right in full and wrong after an exit",
        "changed": "questions whose answer an exit changes",
    }[found.loss]
    return (
        f"# With probability {1 - args.delta:g} over the draw of {found.questions} questions, at "
        f"most {found.epsilon:.1%} of\n# {meaning}, for this model, chat template\n"
        "# and sampling, and for questions like these.\n"
        f"{yaml.safe_dump(made.as_dict(), sort_keys=False, allow_unicode=True)}"
    )
