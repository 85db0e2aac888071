"""`stepgrpo-train calibrate`: record completion lengths without exits."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.savings.baseline import MIN_RUNS
from training.config.families import add_flags, choice_of
from training.data.prompts import (
    PromptTemplate,
    add_prompt_flags,
    prompt_template_of,
    read_prompts,
)
from training.data.sources import Source, read_source

__all__ = [
    "DEFAULT",
    "add_arguments",
    "add_sampling_flags",
    "check_counts",
    "check_sampling",
    "check_writable",
    "context_length",
    "run",
]

DEFAULT = " Default: %(default)s."
ROOM = 512  # tokens of context beside the completion, for the prompt or for probes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add = parser.add_argument
    add(
        "--model",
        required=True,
        help="Directory or hub name of a model, or directory of an adapter.",
    )
    add("--prompts", type=Path, help='File of user messages, a {"prompt": "..."} per line.')
    add(
        "--demo",
        type=int,
        metavar="N",
        help="Calibrate with N validation problems of the demo world instead.",
    )
    add("--output", type=Path, required=True, help="File to write.")
    add("--samples", type=int, default=1, help=f"Completions per prompt.{DEFAULT}")
    add_sampling_flags(parser)
    add(
        "--trials",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="Also record the confidence of a probe at the start of each step. Default: on.",
    )
    add_prompt_flags(parser)
    add_flags(parser)


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the completions."""
    add = parser.add_argument
    add("--temperature", type=float, default=0.6, help=f"Temperature of the sampling.{DEFAULT}")
    add(
        "--top-p",
        type=float,
        default=1.0,
        help=f"Share of the probability that is sampled from.{DEFAULT}",
    )
    add("--max-tokens", type=int, default=900, help=f"Tokens of a completion, at most.{DEFAULT}")
    add(
        "--dtype",
        default="auto",
        help=f"Data type of the weights, as the server's --dtype.{DEFAULT}",
    )


def run(args: argparse.Namespace) -> None:
    """Complete the prompts and write the file. Raises InvalidSetting and BadPrompts."""
    _check(args)
    choice, template = choice_of(args), prompt_template_of(args)
    messages = _messages(args)  # before the slow imports, so that errors come at once
    from vllm import SamplingParams  # noqa: PLC0415 - slow to load

    from training.rollouts.calibration import calibrate, write_baseline  # noqa: PLC0415
    from training.rollouts.offline import Engine  # noqa: PLC0415
    from training.run.adapters import as_model  # noqa: PLC0415

    longest = context_length(args.model, messages, template, args.max_tokens)
    params = SamplingParams(
        temperature=args.temperature, top_p=args.top_p, max_tokens=args.max_tokens
    )
    with as_model(args.model) as path:
        engine = Engine.load(
            path, dtype=args.dtype, max_model_len=longest, choice=choice, prompts=template
        )
    baseline = calibrate(
        engine,
        Path(args.model).name,
        messages,
        samples=args.samples,
        params=params,
        trials=args.trials,
    )
    write_baseline(baseline, args.output)
    runs = sum(len(each.completion_tokens) for each in baseline.bins)
    print(f"{args.output}: {runs} runs in {len(baseline.bins)} bins of prompt length")


def check_counts(args: argparse.Namespace, *names: str) -> None:
    """Raise InvalidSetting for the first flag of `names` that is given and below 1."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InvalidSetting(f"--{name.replace('_', '-')}", value, "use 1 or more")


def check_sampling(args: argparse.Namespace) -> None:
    """Raise InvalidSetting for a temperature or top_p that cannot be sampled with."""
    if not (args.temperature >= 0 and math.isfinite(args.temperature)):
        raise InvalidSetting("--temperature", args.temperature, "use 0 or more")
    if not 0 < args.top_p <= 1:
        raise InvalidSetting("--top-p", args.top_p, "use more than 0, at most 1")


def check_writable(path: Path) -> None:
    """Raise InvalidSetting for a file that cannot be written."""
    try:
        if path.is_dir():
            raise InvalidSetting("--output", str(path), "it is a directory; name a file in it")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.touch()
        partial.unlink()
    except OSError as error:
        remedy = f"it cannot be written ({error}); name another file"
        raise InvalidSetting("--output", str(path), remedy) from error


def _check(args: argparse.Namespace) -> None:
    if (args.prompts is None) == (args.demo is None):
        raise ValueError("pass exactly one of --prompts and --demo")
    check_counts(args, "demo", "samples", "max_tokens")
    check_sampling(args)
    if args.temperature == 0 and args.samples > 1:
        raise InvalidSetting("--samples", args.samples, "at temperature 0 all are equal; use 1")
    check_writable(args.output)


def _messages(args: argparse.Namespace) -> list[str]:
    """Return the prompts; raises InvalidSetting if they are too few for a calibration."""
    if args.prompts:
        messages = read_prompts(args.prompts)
    else:
        source = Source(demo=args.demo, demo_split="validation")
        messages = [each.prompt for each in read_source(source)]
    runs = len(messages) * args.samples
    if runs < MIN_RUNS:
        name, value = ("--prompts", str(args.prompts)) if args.prompts else ("--demo", args.demo)
        remedy = f"these are {runs} completions; a calibration needs {MIN_RUNS} or more of them"
        raise InvalidSetting(name, value, f"{remedy}, from more prompts or --samples")
    return messages


def context_length(
    model: str, messages: Sequence[str], template: PromptTemplate, max_tokens: int
) -> int:
    """Return the context length for the engine; raises InvalidSetting if the model has less."""
    from training.run.models import check_context, check_model, tokenizer_of  # noqa: PLC0415

    found: Any = check_model(model, "--model", adapters=True)
    tokenizer = tokenizer_of(model)
    longest = max(len(template.render(tokenizer, each)) for each in messages)
    check_context(found, longest + max_tokens, "longest prompt and --max-tokens")
    positions = getattr(found.get_text_config(), "max_position_embeddings", None) or math.inf
    wanted = max_tokens + max(ROOM, longest)
    return wanted if wanted <= positions else longest + max_tokens
