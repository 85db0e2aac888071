"""Truncated rollouts against plain ones and against rounds, on real vLLM.

Every pair runs all ways to make the same rollouts, in turn in one engine, from an empty prefix
cache; a row has the same prompt, limit and seed in each. A ratio is the mean over pairs, with its
95 % interval.

`truncated` is what training does: thinking goes on beside its trial. `rounds` are those of the
published code, calls of ``LLM.generate`` (`shared.rounds`). `lock-step` and `sequential` share
all of our code and differ in nothing but the barrier of `lockstep`.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.shared.reports import commit, compare, keep, machine
from benchmarks.training.lockstep import Lockstep
from stepgrpo_core import ExitSettings
from tests.support.servers import MODEL
from training.demo.world import sample_problems
from training.rollouts.batch import (
    Delta,
    Format,
    Probing,
    Request,
    Rollout,
    RolloutEngine,
    RolloutRequest,
    Sampling,
    run_rollouts,
)

METRICS = {
    "kept": "completion tokens per second",
    "processor": "completion tokens per processor second",
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
    rounds: bool = False


CONFIDENCE = ExitSettings(policy="confidence")
WAYS = {
    "plain": Way(ExitSettings()),
    "truncated": Way(CONFIDENCE),
    "sequential": Way(CONFIDENCE, "sequential"),
    "lock-step": Way(CONFIDENCE, "sequential", barrier=True),
    "rounds": Way(CONFIDENCE, rounds=True),
}
COMPARISONS = (
    ("truncated", "plain"),
    ("truncated", "rounds"),
    ("truncated", "lock-step"),
    ("sequential", "lock-step"),
)


@dataclass(frozen=True, slots=True)
class Colocated:
    """vLLM in this process."""

    llm: Any
    engine: RolloutEngine
    form: Format
    prompt_ids: Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Made:
    """What one run made."""

    kept: int
    """Tokens of the completions."""
    generated: int
    """Tokens by the model: also those of trials and behind the exits."""
    prompt_tokens: int
    """Of all requests, those of trials and answers included."""
    steps: int
    served: int
    """Sum over the steps of the requests that got a token."""


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

    from training.rollouts.vllm_engine import VllmEngine, format_of  # noqa: PLC0415

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
        llm,
        VllmEngine(llm.llm_engine),
        format_of(tokenizer, CONFIDENCE.closing_text),
        lambda message: template([{"role": "user", "content": message}]),
    )


def jobs_of(args: argparse.Namespace, vllm: Colocated, pair: int) -> list[RolloutRequest]:
    """`group` completions of each prompt; seeds differ between rows and pairs."""
    prompts = [
        tuple(vllm.prompt_ids(problem.prompt))
        for problem in sample_problems(0, "test", args.prompts)
        for _ in range(args.group)
    ]
    return [
        RolloutRequest(ids, Sampling(limit_of(args.limits, row), seed=pair * len(prompts) + row))
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
        figures[name] = measure(vllm, WAYS[name], jobs, args.group)
        bar.update(len(jobs))
    return figures


def measure(vllm: Colocated, way: Way, jobs: list[RolloutRequest], group: int) -> dict[str, float]:
    """One run, from an empty prefix cache."""
    if not vllm.llm.reset_prefix_cache():
        raise RuntimeError("the prefix cache is in use: requests of the last run are still there")
    started, used = time.perf_counter(), time.process_time()
    made = in_rounds(vllm, way, jobs) if way.rounds else in_loop(vllm, way, jobs)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    return {
        "kept": made.kept / seconds,
        "processor": made.kept / used,
        "generated": made.generated / seconds,
        "group": seconds * group / len(jobs),
        "tokens": made.kept / len(jobs),
        "prompt": made.prompt_tokens / len(jobs),
        "steps": made.steps,
        "batch": made.served / made.steps,
        "step": 1000 * seconds / made.steps,
    }


def in_loop(vllm: Colocated, way: Way, jobs: list[RolloutRequest]) -> Made:
    """With our loop."""
    meter = Meter(vllm.engine)
    engine = Lockstep(meter) if way.barrier else meter
    rollouts = run_rollouts(engine, jobs, way.settings, vllm.form, probing=way.probing)
    return Made(
        kept=sum(len(each.ids) for each in rollouts),
        generated=sum(map(generated_tokens, rollouts)),
        prompt_tokens=meter.prompt_tokens,
        steps=meter.steps,
        served=meter.served,
    )


def in_rounds(vllm: Colocated, way: Way, jobs: list[RolloutRequest]) -> Made:
    """With the rounds of the published code."""
    from benchmarks.shared.rounds import rollouts_in_rounds  # noqa: PLC0415 - imports vLLM

    with counted_steps(vllm.llm.llm_engine) as steps:
        chains = rollouts_in_rounds(vllm.llm, jobs, way.settings, vllm.form)
    generated = sum(each.generated for each in chains)
    return Made(
        kept=sum(len(each.ids) for each in chains),
        generated=generated,
        prompt_tokens=sum(each.prompt_tokens for each in chains),
        steps=len(steps),
        served=generated,  # a token per request and step
    )


@contextmanager
def counted_steps(engine: Any) -> Iterator[list[None]]:
    """One entry for every step of the engine."""
    steps: list[None] = []
    original = engine.step

    def step() -> Any:
        steps.append(None)
        return original()

    engine.step = step
    try:
        yield steps
    finally:
        del engine.step


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
        f"vLLM in this process, {torch.get_num_threads()} threads, {machine()}, commit {commit()}"
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
