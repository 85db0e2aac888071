"""Command line of `stepgrpo-serve` and its subcommands."""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from service.access.scrape import bind_metrics
from service.bench import bench_command
from service.config.access import add_access_flags, rules_of
from service.config.layers import BadOption
from service.config.server import Defaults, add_flags, read_defaults
from service.records.explain_command import explain_command
from service.records.log_writer import RequestLog
from service.savings.command import guard_command, savings_command
from stepgrpo_core import Baseline, InvalidCalibration, InvalidSetting, parse_baseline

__all__ = ["main"]

USAGE = """stepgrpo-serve MODEL [any vllm serve flag] [--exit-policy POLICY ...]
       stepgrpo-serve savings [--url URL | --state FILE] [--format table|json|csv]
       stepgrpo-serve guard --state FILE [--switch-on MODEL POLICY]
       stepgrpo-serve explain ID --log FILE [--format text|json]
       stepgrpo-serve bench [any vllm bench serve flag]"""
DESCRIPTION = (
    "Serve MODEL with vLLM's OpenAI-compatible server, ending reasoning when it is done. "
    "Requests override the policy with vllm_xargs, for example "
    '{"vllm_xargs": {"exit_policy": "confidence", "exit_threshold": 0.9}}.'
)
DRAIN_SECONDS = 30
NO_MEDIA = ["none: set --allowed-media-domains"]  # matches no host; vLLM's errors quote it
MIDDLEWARE = (
    "service.http.routes.Routes",
    "service.http.responses.ResponseReporter",
    "service.access.middleware.Access",
    "service.page.files.Page",
    "service.http.health.Readiness",
    "service.http.sdk_compatibility.SdkCompatibility",
)
"""Import paths for vLLM, the outermost last; those of ``--middleware`` come first."""


def main() -> None:
    """Run the command; startup errors are one line and a non-zero exit status."""
    commands = {"savings": savings_command, "guard": guard_command, "bench": bench_command}
    if command := commands.get("".join(sys.argv[1:2])):
        command(sys.argv[2:])
        return
    if sys.argv[1:2] == ["explain"]:
        explain_command(sys.argv[2:], os.environ)
        return
    try:
        _check_named(sys.argv[1:2])
    except OSError as error:
        sys.exit(f"stepgrpo-serve: {error}")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until log and key files can be reopened
    import uvloop  # noqa: PLC0415 - the subcommands run without it

    from service.process.server import bind, serve  # noqa: PLC0415
    from service.savings.measurement import open_measurement  # noqa: PLC0415 - loads vLLM

    try:
        args = _arguments(sys.argv[1:])
        rules = rules_of(args, os.environ)
        defaults = read_defaults(args, os.environ)
        _check_bases(args, defaults)
        calibrations = _calibrations(args, defaults.calibration)
        savings = open_measurement(defaults.plan, _folders(args), defaults.calibration)
        log = _log(defaults)
        listening = bind(args)
        scraped = bind_metrics(*rules.metrics_at) if rules.metrics_at else None
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f"stepgrpo-serve: {error}")
    serving = serve(
        args,
        listening,
        scraped,
        rules=rules,
        defaults=defaults,
        calibrations=calibrations,
        savings=savings,
        log=log,
    )
    try:
        uvloop.run(serving)
    except InvalidSetting as error:  # needs the model's tokenizer to be detected
        refusal = defaults.resolved.refusal(error.name, error.value, error.remedy)
        sys.exit(f"stepgrpo-serve: {refusal}")
    except BadOption as error:  # needs the model's files
        sys.exit(f"stepgrpo-serve: {error}")


def _arguments(arguments: list[str]) -> argparse.Namespace:
    from service.process.server import argument_parser  # noqa: PLC0415 - loads vLLM

    parser = argument_parser(USAGE, DESCRIPTION)
    add_flags(parser)
    add_access_flags(parser)
    parser.set_defaults(
        shutdown_timeout=DRAIN_SECONDS, allowed_origins=[], allowed_media_domains=NO_MEDIA
    )
    args: argparse.Namespace = parser.parse_args(arguments)
    _check_model(args)
    _check_processes(args)
    # An allowed host could redirect to a forbidden one in a private network.
    os.environ.setdefault("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "0")
    args.middleware = [*args.middleware, *MIDDLEWARE]
    return args


def _calibrations(args: argparse.Namespace, asked: Path | None) -> dict[str | None, Baseline]:
    """Return the calibrations by adapter, with None for the model itself."""
    # The trainer writes them beside the weights.
    found = {name: folder / "calibration.json" for name, folder in _folders(args).items()}
    paths = {name: path for name, path in found.items() if path.is_file()}
    if asked:
        paths[None] = asked
    return {name: _calibration(path) for name, path in paths.items()}


def _folders(args: argparse.Namespace) -> dict[str | None, Path]:
    """Return the folders by adapter, with None for the model itself."""
    adapters = {each.name: Path(each.path) for each in args.lora_modules or ()}
    return {None: Path(args.model)} | adapters


def _calibration(path: Path) -> Baseline:
    try:
        return parse_baseline(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, InvalidCalibration) as error:
        raise InvalidCalibration(f"calibration file {path}: {error}") from error


def _log(defaults: Defaults) -> RequestLog | None:
    """Open the request log; raises BadOption."""
    try:
        return RequestLog(defaults.log) if defaults.log else None
    except InvalidSetting as error:
        raise defaults.resolved.refusal(error.name, error.value, error.remedy) from error


def _check_named(first: list[str]) -> None:
    """Check a model that is the first argument, before vLLM is imported."""
    for model in first:
        if not model.startswith("-"):
            _check_folder(model)


def _check_model(args: argparse.Namespace) -> None:
    """Check the model, whether it is an argument or a flag."""
    if args.model_tag is not None:
        args.model = args.model_tag
    _check_folder(args.model)


def _check_folder(model: str) -> None:
    """Raise FileNotFoundError for a local directory that holds no model."""
    path = Path(model)
    looks_local = path.is_absolute() or model.startswith((".", "~")) or path.is_dir()
    if looks_local and not (path / "config.json").is_file():
        raise FileNotFoundError(f"{model} holds no config.json; pass a model directory or name")


def _check_bases(args: argparse.Namespace, defaults: Defaults) -> None:
    """Raise BadOption for a base of holdout or pairs that is not the model of the adapters."""
    plan = defaults.plan
    bases = {
        "holdout_base": plan.holdout_base,
        # At a URL the name is one of another server.
        "pairs_base": plan.pairs_base if plan.pairs_url is None else None,
    }
    named = args.served_model_name or args.model
    served = [named] if isinstance(named, str) else named
    for option, name in bases.items():
        if name is None:
            continue
        if name not in served:
            remedy = f"it is not the model itself that is served: use {' or '.join(served)}"
            raise defaults.resolved.refusal(option, name, remedy)
        if not args.enable_lora:
            remedy = (
                "no trained model is served beside it: set --enable-lora --lora-modules NAME=PATH"
            )
            raise defaults.resolved.refusal(option, name, remedy)


def _check_processes(args: argparse.Namespace) -> None:
    """Raise InvalidSetting or BadOption for modes that would run without early exit."""
    if (args.api_server_count or 1) > 1:
        remedy = (
            "one API server process is supported; run several servers behind a balancer, on one "
            "machine with one --exit-state file"
        )
        raise InvalidSetting("--api-server-count", args.api_server_count, remedy)
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        if name in os.environ:
            remedy = (
                "unset it: metrics of a single process do without, and here would be incomplete"
            )
            raise BadOption("environment", name, os.environ[name], remedy)
    for name in ("headless", "grpc"):
        if getattr(args, name):
            raise InvalidSetting(f"--{name}", True, "only the HTTP server is supported")


if __name__ == "__main__":
    main()
