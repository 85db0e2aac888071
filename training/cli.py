"""`stepgrpo-train grpo|sft|eval|demo|calibrate`."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from training.config import RunConfig, dump_config, load_config, preset_names
from training.evaluation import command as evaluation
from training.families import add_flags, choice_of

__all__ = ["build_parser", "main"]


def main() -> None:
    """Entry point; ends with one clear line and a non-zero status when something is wrong."""
    # One process, so that runs repeat and progress shows; must be set before vLLM is imported.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    if not Path("/dev/nvidiactl").exists():
        # vLLM would compile its log-probs, and fail where there is no C++ compiler.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    args = build_parser().parse_args()
    try:
        args.run(args)
    except (OSError, ValueError, RuntimeError) as error:
        if type(error) is RuntimeError:
            raise  # nobody's message: a bug, or torch's; show where
        sys.exit(f"stepgrpo-train: {error}")


def build_parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    parser = argparse.ArgumentParser(prog="stepgrpo-train", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(
        commands,
        "grpo",
        _grpo,
        summary="train by GRPO: Step-GRPO, its ablations and the other rewards",
        description="Train a model by GRPO with truncated rollouts and the configured reward. "
        "A signal saves and stops; --resume goes on, with the losses the run would have had.",
    )
    _add_run(
        commands,
        "sft",
        _sft,
        summary="DEER+SFT: sample with exits, keep the short correct ones, fine-tune",
        description="Sample completions with exits, keep the shortest correct ones, and "
        "fine-tune on them. --resume goes on where a stopped run was.",
    )
    _add_eval(commands)
    _add_demo(commands)
    _add_calibrate(commands)
    return parser


def _add_run(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    start: Callable[..., None],
    summary: str,
    description: str,
) -> None:
    example = f"stepgrpo-train {name} --config qwen3-8b --config methods/lp trl.max_steps=50"
    command = commands.add_parser(
        name,
        epilog=f"Presets: {', '.join(preset_names())}. Several lie over each other, the later "
        f"above: {example}. All settings: --print-config.",
        help=summary,
        description=description,
    )
    command.add_argument(
        "--config",
        action="append",
        required=True,
        metavar="NAME",
        help="preset or YAML file; repeat to lay one over another",
    )
    command.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="such as rollout.exit.threshold=0.9"
    )
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    command.add_argument(
        "--dry-run", action="store_true", help="check everything, explain the run, train nothing"
    )
    command.add_argument(
        "--print-config", action="store_true", help="print the whole configuration and stop"
    )
    command.set_defaults(run=_train, start=start)


def _add_eval(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "eval",
        help="compare models and exit policies on benchmarks, with intervals",
        description="Complete and grade benchmarks with every model under every exit policy, and "
        "compare each with the baseline on the same questions and seeds. Writes results.md, "
        "results.json and tradeoff.png. Defaults are in parentheses. An evaluation that was "
        "stopped or killed goes on with the same command.",
    )
    evaluation.add_arguments(parser)
    parser.set_defaults(run=evaluation.run)


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = commands.add_parser(
        "demo",
        help="the demo world: train its base model, or every method on it",
        description="The demo world runs everything on two CPU cores.",
    ).add_subparsers(required=True, metavar="WHAT")
    _add_base(demo)
    _add_results(demo)


def _add_base(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    base = commands.add_parser(
        "base",
        help="train demo-base from scratch and measure it",
        description="Train demo-base from scratch, measure it on unseen problems, calibrate it "
        "and write its model card. A run that was stopped goes on where it was.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    base.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder")
    base.add_argument("--steps", type=int, help="of the first stage, instead of the recipe's")
    base.add_argument("--seed", type=int, default=0, help="of weights and traces")
    base.add_argument("--problems", type=int, default=1000, help="unseen problems to measure on")
    base.set_defaults(run=_demo_base)


def _add_results(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    results = commands.add_parser(
        "results",
        help="train every method from demo-base and compare them",
        description="Train Step-GRPO, its ablations and the other methods from demo-base, evaluate "
        "all on the same unseen problems, and write a table and a plot. What is finished is kept: "
        "a table that was stopped goes on with the same command.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    results.add_argument("--output", type=Path, default=Path("outputs/results"), help="folder")
    results.add_argument(
        "--base", type=Path, default=Path("models/demo-base"), help="model that all start from"
    )
    results.add_argument(
        "--reduced", action="store_true", help="Step-GRPO and GRPO+LP only, one seed of each"
    )
    results.add_argument("--problems", type=int, default=1000, help="unseen problems to answer")
    results.add_argument(
        "--learning-rate", type=float, help="of every GRPO run (the preset's, 1e-3)"
    )
    results.add_argument("--slots", type=int, default=2, help="jobs at once, one thread each")
    results.set_defaults(run=_demo_results)


def _add_calibrate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    calibrate = commands.add_parser(
        "calibrate",
        help="record un-exited completion lengths for stepgrpo-serve --exit-calibration",
        description="Complete prompts without any exit and record how long the completions are, "
        "where their steps begin, and how confident a trial answer is there. "
        "Calibrate with prompts like your users' and the sampling parameters they use: the "
        "server's saved tokens are predictions from this file.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    calibrate.add_argument(
        "--model", required=True, help="model directory or name, or an adapter's"
    )
    calibrate.add_argument("--prompts", type=Path, help='JSONL of {"prompt": "..."}')
    calibrate.add_argument(
        "--demo", type=int, metavar="N", help="instead: N validation problems of the demo world"
    )
    calibrate.add_argument("--output", type=Path, required=True, help="file to write")
    calibrate.add_argument("--samples", type=int, default=1, help="completions per prompt")
    calibrate.add_argument("--temperature", type=float, default=0.6)
    calibrate.add_argument("--top-p", type=float, default=1.0)
    calibrate.add_argument("--max-tokens", type=int, default=900)
    calibrate.add_argument("--dtype", default="auto", help="as the server's --dtype")
    calibrate.add_argument(
        "--trials",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="record also how confident a trial answer is wherever a step begins",
    )
    add_flags(calibrate)
    calibrate.set_defaults(run=_calibrate)


def _train(args: argparse.Namespace) -> None:
    config = load_config(args.config, args.overrides)
    if args.print_config:
        print(dump_config(config), end="")
    elif args.dry_run:
        from training.dryrun import explain  # noqa: PLC0415 - torch and TRL load slowly

        explain(config)
    else:
        args.start(config, resume=args.resume)


def _grpo(config: RunConfig, *, resume: bool) -> None:
    from training.trainer import train  # noqa: PLC0415 - torch and TRL load slowly

    if config.sft:
        raise ValueError("the configuration has an `sft` section: run stepgrpo-train sft")
    train(config, resume=resume)


def _sft(config: RunConfig, *, resume: bool) -> None:
    from training.sft import run_sft  # noqa: PLC0415 - torch and TRL load slowly

    if not config.sft:
        raise ValueError("the configuration has no `sft` section: add --config methods/deer-sft")
    run_sft(config, resume=resume)


def _demo_base(args: argparse.Namespace) -> None:
    from training.demo.pipeline import run_demo  # noqa: PLC0415 - torch and vLLM load slowly

    run_demo(args.output, seed=args.seed, steps=args.steps, problems=args.problems)


def _demo_results(args: argparse.Namespace) -> None:
    from training.demo.table import Table, run_table  # noqa: PLC0415 - torch loads slowly

    run_table(
        Table(
            args.output,
            args.base,
            reduced=args.reduced,
            learning_rate=args.learning_rate,
            problems=args.problems,
            way_problems=min(args.problems, 500),
            slots=args.slots,
        )
    )


def _calibrate(args: argparse.Namespace) -> None:
    from vllm import SamplingParams  # noqa: PLC0415 - slow to load

    from training.adapters import as_model  # noqa: PLC0415
    from training.calibrate import calibrate, read_prompts, write_baseline  # noqa: PLC0415
    from training.demo.world import sample_problems  # noqa: PLC0415
    from training.offline import Engine  # noqa: PLC0415

    if (args.prompts is None) == (args.demo is None):
        raise ValueError("pass exactly one of --prompts and --demo")
    messages = (
        read_prompts(args.prompts)
        if args.prompts
        else [problem.prompt for problem in sample_problems(0, "validation", args.demo)]
    )
    params = SamplingParams(
        temperature=args.temperature, top_p=args.top_p, max_tokens=args.max_tokens
    )
    choice, longest = choice_of(args), args.max_tokens + 512
    with as_model(args.model) as path:
        engine = Engine.load(path, dtype=args.dtype, max_model_len=longest, choice=choice)
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


if __name__ == "__main__":
    main()
