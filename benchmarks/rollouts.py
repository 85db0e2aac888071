"""Truncated rollouts against plain ones, and ours against lock-step rounds, on real vLLM.

Every pair runs all ways to make the same rollouts, in turn in one engine, from an empty prefix
cache; a row has the same prompt, limit and seed in each. A figure is the median over pairs of
the ratio, with the range of those ratios.

`lock-step` and `sequential` differ in nothing but the barrier of `benchmarks.lockstep`.
`truncated` is what training does: thinking goes on beside its trial.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm import tqdm

from benchmarks.lockstep import Lockstep
from benchmarks.reports import commit, compare, keep, machine
from stepgrpo_core import ExitSettings
from tests.integration.servers import MODEL
from training.demo.world import sample_problems
from training.rollout import (
    Delta,
    Format,
    Job,
    Probing,
    Request,
    Rollout,
    RolloutEngine,
    Sampling,
    run_rollouts,
)

METRICS = {
    "kept": "completion tokens per second",
    "generated": "generated tokens per second",
    "group": "seconds per group",
    "tokens": "tokens per completion",
    "prompt": "prompt tokens per completion, cached or not",
    "steps": "engine steps",
    "batch": "requests per step",
    "step": "milliseconds per step",
}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to make rollouts."""

    settings: ExitSettings
    probing: Probing = "parallel"
    barrier: bool = False


CONFIDENCE = ExitSettings(policy="confidence")
WAYS = {
    "plain": Way(ExitSettings()),
    "truncated": Way(CONFIDENCE),
    "sequential": Way(CONFIDENCE, "sequential"),
    "lock-step": Way(CONFIDENCE, "sequential", barrier=True),
}
COMPARISONS = (("truncated", "plain"), ("truncated", "lock-step"), ("sequential", "lock-step"))


@dataclass(frozen=True, slots=True)
class Colocated:
    """vLLM in this process."""

    engine: RolloutEngine
    form: Format
    prompt_ids: Callable[[str], list[int]]
    reset: Callable[[], bool]
    """Empties the prefix cache; False when something still held it."""


@dataclass(slots=True)
class Meter:
    """Passes everything on, and counts what an engine's time is spent on."""

    engine: RolloutEngine
    prompt_tokens: int = 0
    """Of all requests, those of trials and answers included."""
    steps: int = 0
    served: int = 0
    """Sum over the steps of the requests that got a token."""

    def add(self, request: Request) -> None:
        """Pass a request on, counted."""
        self.prompt_tokens += len(request.prompt_ids)
        self.engine.add(request)

    def abort(self, request_ids: Sequence[str]) -> None:
        """Pass an abort on."""
        self.engine.abort(request_ids)

    def step(self) -> Sequence[Delta]:
        """One step, counted."""
        deltas = self.engine.step()
        self.steps += 1
        self.served += len(deltas)
        return deltas


def main() -> None:
    """Run the pairs, print the tables, and keep every figure in outputs/bench/rollouts.json."""
    args = _arguments()
    vllm = load(args.seats, max(args.limits))
    runs = args.pairs + 1  # the first pair warms up: kernels are made for new shapes
    total = runs * len(WAYS) * args.prompts * args.group
    with tqdm(total=total, unit="rollout", smoothing=0) as bar:
        pairs = [run_pair(vllm, args, index, bar) for index in range(runs)]
    report(pairs[1:], args)


def load(seats: int, limit: int) -> Colocated:
    """The demo model as training runs it; at most `seats` requests in a step."""
    # One process, so that its step loop is ours; must be set before vLLM is imported.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM  # noqa: PLC0415 - see above

    from training.engines import VllmEngine, format_of  # noqa: PLC0415

    llm = LLM(
        model=str(MODEL),
        dtype="float32",
        enforce_eager=True,
        max_model_len=limit + 128,  # the problems are shorter
        max_num_seqs=seats,
        enable_chunked_prefill=False,
        block_size=32,
        logprobs_mode="processed_logprobs",
    )
    tokenizer = llm.get_tokenizer()
    template = partial(tokenizer.apply_chat_template, add_generation_prompt=True, return_dict=False)
    return Colocated(
        VllmEngine(llm.llm_engine),
        format_of(tokenizer, CONFIDENCE.closing_text),
        lambda message: template([{"role": "user", "content": message}]),
        llm.reset_prefix_cache,
    )


def jobs_of(args: argparse.Namespace, vllm: Colocated, pair: int) -> list[Job]:
    """`group` completions of each prompt; seeds differ between rows and pairs."""
    prompts = [
        tuple(vllm.prompt_ids(problem.prompt))
        for problem in sample_problems(0, "test", args.prompts)
        for _ in range(args.group)
    ]
    return [
        Job(ids, Sampling(limit_of(args.limits, row), seed=pair * len(prompts) + row))
        for row, ids in enumerate(prompts)
    ]


def limit_of(limits: Sequence[int], row: int) -> int:
    """Limits go round the rows."""
    return limits[row % len(limits)]


def run_pair(
    vllm: Colocated, args: argparse.Namespace, index: int, bar: "tqdm[Any]"
) -> dict[str, dict[str, float]]:
    """Every way once, the order alternating, so that load falls on all alike."""
    jobs = jobs_of(args, vllm, index)
    figures = {}
    for name in list(WAYS)[:: -1 if index % 2 else 1]:
        bar.set_postfix_str(name)
        figures[name] = measure(vllm, WAYS[name], jobs, args.group, lambda _: bar.update())
    return figures


def measure(
    vllm: Colocated, way: Way, jobs: list[Job], group: int, finished: Callable[[Rollout], None]
) -> dict[str, float]:
    """One run, from an empty prefix cache."""
    if not vllm.reset():
        raise RuntimeError("the prefix cache is in use: requests of the last run are still there")
    meter = Meter(vllm.engine)
    engine = Lockstep(meter) if way.barrier else meter
    started = time.perf_counter()
    rollouts = run_rollouts(
        engine, jobs, way.settings, vllm.form, probing=way.probing, finished=finished
    )
    seconds = time.perf_counter() - started
    kept = sum(len(each.ids) for each in rollouts)
    return {
        "kept": kept / seconds,
        "generated": sum(map(generated_tokens, rollouts)) / seconds,
        "group": seconds * group / len(jobs),
        "tokens": kept / len(jobs),
        "prompt": meter.prompt_tokens / len(jobs),
        "steps": meter.steps,
        "batch": meter.served / meter.steps,
        "step": 1000 * seconds / meter.steps,
    }


def generated_tokens(rollout: Rollout) -> int:
    """By the model for this completion: also those of trials and behind the exit."""
    own = len(rollout.ids) - sum(rollout.injected)
    return own + rollout.probe_tokens + rollout.discarded_tokens


def report(pairs: list[dict[str, dict[str, float]]], args: argparse.Namespace) -> None:
    """Print the tables and write the figures."""
    limits = ", ".join(map(str, args.limits))
    setting = (
        f"{args.pairs} pairs of {args.prompts} demo problems of all levels x {args.group} "
        f"completions, T = 1.0, at most {limits} tokens, {args.seats} seats; demo-base, float32, "
        f"vLLM in this process, {machine()}, commit {commit()}"
    )
    print(f"\n{setting}")
    for ours, peer in COMPARISONS:
        print("\n" + compare(pairs, METRICS, title="rollouts", ours=ours, peer=peer))
    print(f"\nEvery figure: {keep('rollouts', {'setting': setting, 'pairs': pairs})}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pairs", type=int, default=5, help="runs of each way, after one that warms up (5)")
    add("--prompts", type=int, default=16, help="problems in a run (16)")
    add("--group", type=int, default=8, help="completions of each problem (8)")
    add(
        *("--limits", "--max-tokens"),
        type=int,
        nargs="+",
        default=[900],
        help="tokens of a completion at most; several go round the rows (900)",
    )
    add(
        "--seats",
        type=int,
        default=256,
        help="requests in one engine step at most, vLLM's max_num_seqs (256: nobody queues)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
