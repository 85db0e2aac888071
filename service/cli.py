"""`stepgrpo-serve MODEL [any vllm serve flag] [--exit-policy ...]`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from service.patterns import matcher_of
from stepgrpo_core import (
    LEXICONS,
    POLICIES,
    Baseline,
    ExitSettings,
    InvalidCalibration,
    InvalidSetting,
    build_policy,
    parse_baseline,
)

__all__ = ["main"]

USAGE = "stepgrpo-serve MODEL [any vllm serve flag] [--exit-policy POLICY ...]"
DESCRIPTION = (
    "Serve MODEL with vLLM's OpenAI-compatible server, ending reasoning when it is done. "
    "Requests override the policy with vllm_xargs, for example "
    '{"vllm_xargs": {"exit_policy": "confidence", "exit_threshold": 0.9}}.'
)
DRAIN_SECONDS = 30


def main() -> None:
    """Entry point; ends with one clear line and a non-zero status when it cannot serve."""
    import uvloop  # noqa: PLC0415 - vLLM brings it; the module must import without

    from service.server import bind, serve  # noqa: PLC0415 - loads vLLM

    try:
        args = _arguments(sys.argv[1:])
        defaults, calibrations = exit_settings(args), _calibrations(args)
        address, bound = bind(args)
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f"stepgrpo-serve: {error}")
    uvloop.run(serve(args, address, bound, defaults, calibrations))


def _arguments(arguments: list[str]) -> argparse.Namespace:
    from service.server import argument_parser  # noqa: PLC0415 - loads vLLM

    parser = argument_parser(USAGE, DESCRIPTION)
    _add_exit_flags(parser)
    parser.set_defaults(shutdown_timeout=DRAIN_SECONDS)
    args: argparse.Namespace = parser.parse_args(arguments)
    _check_model(args)
    _check_processes(args)
    args.middleware = [*args.middleware, "service.reporting.Reporting"]
    return args


def _add_exit_flags(parser: Any) -> None:
    default = ExitSettings()
    group = parser.add_argument_group("ExitConfig", "When reasoning ends from outside.")
    group.add_argument(
        "--exit-policy",
        metavar="POLICY",
        default=default.policy,
        help="Policy of requests that name none, or several joined by +: " + ", ".join(POLICIES),
    )
    group.add_argument(
        "--exit-threshold",
        type=float,
        default=default.threshold,
        help="Exit when a trial answer's confidence is greater than this (0 to 1).",
    )
    for name, text in (
        ("max-probes", "Trial answers per sequence."),
        ("min-tokens", "Reasoning tokens before the first trial answer."),
        ("min-interval", "Reasoning tokens between two trial answers."),
    ):
        value = getattr(default, name.replace("-", "_"))
        group.add_argument(f"--exit-{name}", type=int, default=value, help=text)
    for name, text in (
        ("budget-tokens", "Policy budget: reasoning tokens after which the thinking is closed."),
        ("max-steps", "Policy budget: steps after which the thinking is closed."),
    ):
        group.add_argument(f"--exit-{name}", type=int, default=None, help=text)
    group.add_argument(
        "--exit-pattern",
        metavar="EXPRESSION",
        help="Policy pattern: regular expression (RE2) on the line of reasoning that ends it.",
    )
    group.add_argument(
        "--exit-shadow", action="store_true", help="Decide and record, but change nothing."
    )
    group.add_argument(
        "--exit-markers",
        choices=sorted(LEXICONS),
        default="paper",
        help="Step markers: a named lexicon.",
    )
    group.add_argument(
        "--exit-calibration",
        type=Path,
        metavar="FILE",
        help="Lengths of un-exited completions (stepgrpo-train calibrate); default: "
        "calibration.json in the model's folder. Without it no saved tokens are reported.",
    )


def exit_settings(args: argparse.Namespace) -> ExitSettings:
    """The server's default exit settings from its flags; raises InvalidSetting."""
    settings = ExitSettings(
        policy=args.exit_policy,
        threshold=args.exit_threshold,
        max_probes=args.exit_max_probes,
        min_tokens=args.exit_min_tokens,
        min_interval=args.exit_min_interval,
        shadow=args.exit_shadow,
        budget_tokens=args.exit_budget_tokens,
        max_steps=args.exit_max_steps,
        pattern=args.exit_pattern,
        markers=LEXICONS[args.exit_markers],
    )
    build_policy(settings, matcher_of(settings))
    return settings


def _calibrations(args: argparse.Namespace) -> dict[str | None, Baseline]:
    """By adapter, None for the model itself: each has lengths of its own."""
    folders = {None: args.model} | {each.name: each.path for each in args.lora_modules or ()}
    # The trainer puts them beside the weights.
    found = {name: Path(folder) / "calibration.json" for name, folder in folders.items()}
    paths = {name: path for name, path in found.items() if path.is_file()}
    if args.exit_calibration:
        paths[None] = args.exit_calibration
    return {name: _calibration(path) for name, path in paths.items()}


def _calibration(path: Path) -> Baseline:
    try:
        return parse_baseline(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, InvalidCalibration) as error:
        raise InvalidCalibration(f"calibration file {path}: {error}") from error


def _check_model(args: argparse.Namespace) -> None:
    """Refuse a model directory that cannot be one, before anything slow."""
    if args.model_tag is not None:
        args.model = args.model_tag
    path = Path(args.model)
    looks_local = path.is_absolute() or args.model.startswith((".", "~")) or path.is_dir()
    if looks_local and not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"{args.model} holds no config.json; pass a model directory or name"
        )


def _check_processes(args: argparse.Namespace) -> None:
    """Refuse what would run without early exit."""
    if (args.api_server_count or 1) > 1:
        remedy = "one API server process is supported; run several servers behind a balancer"
        raise InvalidSetting("--api-server-count", args.api_server_count, remedy)
    for name in ("headless", "grpc"):
        if getattr(args, name):
            raise InvalidSetting(f"--{name}", True, "only the HTTP server is supported")


if __name__ == "__main__":
    main()
