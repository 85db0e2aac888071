"""`stepgrpo-train demo|calibrate`."""

import argparse
import os
import sys
from pathlib import Path

__all__ = ["build_parser", "main"]


def main() -> None:
    """Entry point; ends with one clear line and a non-zero status when something is wrong."""
    # One process, so that runs repeat and progress shows; must be set before vLLM is imported.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    args = build_parser().parse_args()
    try:
        args.run(args)
    except (OSError, ValueError) as error:
        sys.exit(f"stepgrpo-train: {error}")


def build_parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    parser = argparse.ArgumentParser(prog="stepgrpo-train", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_calibrate(commands)
    return parser


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = commands.add_parser(
        "demo",
        help="train the demo model from scratch and measure it",
        description="Train demo-base from scratch, measure it on unseen problems, calibrate it "
        "and write its model card. A run that was stopped goes on where it was.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder")
    demo.add_argument("--steps", type=int, help="optimiser steps, instead of the recipe's")
    demo.add_argument("--seed", type=int, default=0, help="of weights and traces")
    demo.add_argument("--problems", type=int, default=1000, help="unseen problems to measure on")
    demo.set_defaults(run=_demo)


def _add_calibrate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    calibrate = commands.add_parser(
        "calibrate",
        help="record un-exited completion lengths for stepgrpo-serve --exit-calibration",
        description="Complete prompts without any exit and record how long the completions are. "
        "Calibrate with prompts like your users' and the sampling parameters they use: the "
        "server's saved tokens are predictions from this file.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    calibrate.add_argument("--model", required=True, help="model directory or name")
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
    calibrate.set_defaults(run=_calibrate)


def _demo(args: argparse.Namespace) -> None:
    from training.demo.pipeline import run_demo  # noqa: PLC0415 - torch and vLLM load slowly

    run_demo(args.output, seed=args.seed, steps=args.steps, problems=args.problems)


def _calibrate(args: argparse.Namespace) -> None:
    from vllm import SamplingParams  # noqa: PLC0415 - slow to load

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
    engine = Engine(args.model, dtype=args.dtype, max_model_len=args.max_tokens + 512)
    baseline = calibrate(
        engine, Path(args.model).name, messages, samples=args.samples, params=params
    )
    write_baseline(baseline, args.output)
    runs = sum(len(each.completion_tokens) for each in baseline.bins)
    print(f"{args.output}: {runs} runs in {len(baseline.bins)} bins of prompt length")


if __name__ == "__main__":
    main()
