"""Train, evaluate and calibrate reasoning models that stop thinking early."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

from training import calibrate_command as calibration
from training.config.schema import RunConfig, explain_config, load_config, preset_names
from training.demo import command as demo
from training.evaluation import command as evaluation
from training.exits import command as exit_calibration
from training.run.ports import choose_port
from training.viewing import command as viewing

__all__ = ["build_parser", "main"]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main() -> None:
    """Run the command; expected errors are one line and a non-zero exit status."""
    # vLLM reads these when it is imported. One process makes runs repeatable.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    if not Path("/dev/nvidiactl").exists():
        # Without a GPU vLLM would compile its log-probs, which needs a C++ compiler.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    args = build_parser().parse_args()
    try:
        choose_port()
        args.run(args)
    except (OSError, ValueError, RuntimeError) as error:
        if type(error) is RuntimeError:
            raise  # not one of ours: a bug, or an error of torch, which needs its traceback
        sys.exit(f"stepgrpo-train: {error}")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="stepgrpo-train", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(
        commands,
        "grpo",
        _grpo,
        summary="Train by GRPO: Step-GRPO, its ablations and the other rewards.",
        description="Train a model by GRPO with truncated rollouts and the configured reward. "
        "A signal saves a checkpoint and stops; --resume continues as if the run had not stopped.",
    )
    _add_run(
        commands,
        "sft",
        _sft,
        summary="Train by DEER+SFT: sample with exits, keep the short correct ones, fine-tune.",
        description="Sample completions with exits, keep the shortest correct ones, and "
        "fine-tune on them. --resume continues a stopped run.",
    )
    _add(
        commands,
        "eval",
        evaluation,
        summary="Compare models and exit policies on benchmarks, with intervals.",
        description="Complete and grade benchmarks with every model under every exit policy, and "
        "compare each with the baseline on the same questions and seeds. Writes results.md, "
        "results.json, tradeoff.png and failures.html. The same command resumes a stopped "
        "evaluation.",
    )
    viewing.add_commands(commands)
    demo.add_commands(
        commands.add_parser(
            "demo",
            help="Train the base model of the demo world, or every method on it.",
            description="The demo world runs everything on two CPU cores.",
        ).add_subparsers(required=True, metavar="WHAT")
    )
    _add(
        commands,
        "calibrate",
        calibration,
        summary="Record completion lengths without exits, for stepgrpo-serve --exit-calibration.",
        description="Complete prompts without exits and record the lengths of the completions, "
        "where their steps begin, and the confidence of a probe there. Use prompts and sampling "
        "parameters like your users': the server predicts saved tokens from this file.",
    )
    _add(
        commands,
        "calibrate-exit",
        exit_calibration,
        summary="Choose the threshold of policy confidence by a bound of its risk.",
        description="Complete questions in full and with exits at every threshold, and choose the "
        "cheapest threshold whose risk is at most --epsilon with probability 1 - --delta. Use "
        "questions and sampling parameters like your users'. Writes a file for stepgrpo-serve "
        "--exit-config, the figures as JSON, and a plot.",
    )
    return parser


def _add(
    commands: Commands, name: str, command: ModuleType, *, summary: str, description: str
) -> None:
    parser = commands.add_parser(name, help=summary, description=description)
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def _add_run(
    commands: Commands,
    name: str,
    start: Callable[..., None],
    summary: str,
    description: str,
) -> None:
    example = f"stepgrpo-train {name} --config qwen3-8b --config methods/lp trl.max_steps=50"
    command = commands.add_parser(
        name,
        epilog=f"Presets: {', '.join(preset_names())}. Later ones override "
        f"earlier ones: {example}. --print-config explains all settings.",
        help=summary,
        description=description,
    )
    command.add_argument(
        "--config",
        action="append",
        required=True,
        metavar="NAME",
        help="Preset or YAML file; repeat it, and later ones override earlier ones.",
    )
    command.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="Setting to change, such as rollout.exit.threshold=0.9.",
    )
    command.add_argument("--resume", action="store_true", help="Continue from the last checkpoint.")
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="Check the configuration and the model, explain the run, and stop.",
    )
    command.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="With --dry-run, explain the run on N processes, one for each GPU.",
    )
    command.add_argument(
        "--gpu-memory",
        type=float,
        metavar="GIB",
        help="With --dry-run, memory of each GPU in GiB. Default: this machine's, or 80 where "
        "--processes is given and there is none.",
    )
    command.add_argument(
        "--print-config",
        action="store_true",
        help="Print the whole configuration, with the meaning of each key, and stop.",
    )
    command.set_defaults(run=_train, start=start)


def _train(args: argparse.Namespace) -> None:
    planned = {"processes": args.processes, "gpu_gib": args.gpu_memory}
    calibration.check_counts(args, "processes", "gpu_memory")
    if any(planned.values()) and not args.dry_run:
        raise ValueError(
            "--processes and --gpu-memory need --dry-run; accelerate starts runs on several GPUs"
        )
    config = load_config(args.config, args.overrides)
    if args.print_config:
        print(explain_config(config), end="")
    elif args.dry_run:
        from training.dry_run import explain  # noqa: PLC0415 - torch and TRL load slowly

        explain(config, **planned)
    else:
        args.start(config, resume=args.resume)


def _grpo(config: RunConfig, *, resume: bool) -> None:
    from training.grpo.train import train  # noqa: PLC0415 - torch and TRL load slowly

    if config.sft:
        raise ValueError("the configuration has an `sft` section: run stepgrpo-train sft")
    train(config, resume=resume)


def _sft(config: RunConfig, *, resume: bool) -> None:
    from training.sft.train import run_sft  # noqa: PLC0415 - torch and TRL load slowly

    if not config.sft:
        raise ValueError("the configuration has no `sft` section: add --config methods/deer-sft")
    run_sft(config, resume=resume)


if __name__ == "__main__":
    main()
