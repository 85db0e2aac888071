"""Cost of trial answers beside the stream against sequential ones, and of a declined trial.

The benchmark runs vLLM's `AsyncLLM` in this process, without HTTP. `parallel` is
`EarlyExitEngine`: thinking continues during its trial. `sequential` is possible for a client of
any server: the stream ends at every marker, the trial runs, and after a declined one thinking
resumes (`shared.rounds`, each sequence by itself). All are greedy, so parallel and sequential make
the same completions.

For the cost of a declined trial no exit is allowed (threshold 1), and the number of trials grows.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry
from tqdm import tqdm
from vllm.sampling_params import RequestOutputKind, SamplingParams

from benchmarks.shared.arguments import parser_of
from benchmarks.shared.reports import compare, keep, made, number
from benchmarks.shared.rounds import Chain, Chains
from service.engine.client import EarlyExitEngine
from service.records.metrics import Metrics
from stepgrpo_core import ExitSettings
from tests.support.servers import EXECUTOR, MODEL
from training.demo.world import sample_problems
from training.rollouts.batch import RolloutRequest, Sampling
from training.rollouts.vllm_engine import format_of

LIMIT = 900  # tokens of a completion
CONFIDENCE = ExitSettings(policy="confidence")
METRICS = {
    "seconds": "seconds of a run",
    "latency": "seconds to the full answer, p50",
    "generated": "generated tokens per completion",
    "prefilled": "uncached prompt tokens per completion",
    "tokens": "tokens per completion",
}
TRIALS = (0, 1, 2, 4)  # at most, per completion
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


@dataclass(slots=True)
class Counted:
    """vLLM's engine client with counts of the tokens that it must compute."""

    inner: Any
    generated: int = 0
    prefilled: int = 0
    """Prompt tokens that the prefix cache did not hold."""
    trials: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def generate(
        self, prompt: Any, params: Any, request_id: str, **options: Any
    ) -> AsyncIterator[Any]:
        """Yield vLLM's outputs and count them."""
        self.trials += "-probe-" in request_id
        first = True
        async for output in self.inner.generate(prompt, params, request_id, **options):
            if first:
                cached = output.num_cached_tokens or 0
                self.prefilled += len(output.prompt_token_ids) - cached
                first = False
            self.generated += sum(len(each.token_ids) for each in output.outputs)
            yield output


Complete = Callable[[RolloutRequest], Awaitable[int]]
"""A coroutine function that makes one completion and returns its tokens."""
Way = Callable[[Counted], Complete]


def main() -> None:
    """Print the tables, and write all figures to outputs/bench/probing.json."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--pairs", type=int, default=3, help="runs of each way, after one that warms up (3)"
    )
    parser.add_argument("--prompts", type=int, default=64, help="completions of a run (64)")
    parser.add_argument("--concurrency", type=int, default=16, help="at once (16)")
    args = parser.parse_args()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    where = made()
    found = {"made": where, **asyncio.run(_measure(args))}
    _report(found)
    print(f"\nEvery figure: {keep('probing', found)}")


async def _measure(args: argparse.Namespace) -> dict[str, Any]:
    declined = {
        str(most): _parallel(replace(CONFIDENCE, threshold=1.0, max_probes=most)) for most in TRIALS
    }
    ways = {
        "none": _parallel(ExitSettings()),
        "parallel": _parallel(CONFIDENCE),
        "sequential": _sequential,
    }
    total = (args.pairs + 1) * (len(ways) + len(declined))
    async with _engine() as inner:
        requests = _requests(inner.renderer.tokenizer, args.prompts)
        with tqdm(total=total, unit="run", smoothing=0) as bar:
            run = partial(_rounds, inner, requests=requests, args=args, bar=bar)
            return {
                "setting": f"{args.prompts} demo problems, {args.concurrency} at once, greedy, "
                f"at most {LIMIT} tokens",
                "probing": await run(ways),
                "declined": await run(declined),
            }


@asynccontextmanager
async def _engine() -> AsyncIterator[Any]:
    from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415 - reads the environment
    from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=str(MODEL),
            dtype="float32",
            enforce_eager=True,
            max_model_len=2048,
            enable_chunked_prefill=False,
            block_size=32,
            distributed_executor_backend=EXECUTOR,
        )
    )
    try:
        yield engine
    finally:
        engine.shutdown()


def _requests(tokenizer: Any, count: int) -> list[RolloutRequest]:
    template = partial(tokenizer.apply_chat_template, add_generation_prompt=True, return_dict=False)
    sampling = Sampling(LIMIT, temperature=0.0)
    return [
        RolloutRequest(tuple(template([{"role": "user", "content": each.prompt}])), sampling)
        for each in sample_problems(8, "test", count)
    ]


async def _rounds(
    inner: Any,
    ways: Mapping[str, Way],
    *,
    requests: Sequence[RolloutRequest],
    args: argparse.Namespace,
    bar: "tqdm[Any]",
) -> list[dict[str, dict[str, float]]]:
    """Run every way once a round, in alternating order; the first round warms up."""
    rounds = []
    for index in range(args.pairs + 1):
        runs = {}
        for name in list(ways)[:: 1 if index % 2 else -1]:
            bar.set_postfix_str(name)
            runs[name] = await _run(inner, ways[name], requests, args.concurrency)
            bar.update()
        rounds.append(runs)
    return rounds[1:]


async def _run(
    inner: Any, way: Way, requests: Sequence[RolloutRequest], concurrency: int
) -> dict[str, float]:
    """Make one run, from an empty prefix cache."""
    await inner.reset_prefix_cache()
    engine, seats = Counted(inner), asyncio.Semaphore(concurrency)
    complete, latencies = way(engine), list[float]()

    async def one(request: RolloutRequest) -> int:
        async with seats:
            started = time.perf_counter()
            tokens = await complete(request)
            latencies.append(time.perf_counter() - started)
            return tokens

    started = time.perf_counter()
    tokens = sum(await asyncio.gather(*map(one, requests)))
    return {
        "seconds": time.perf_counter() - started,
        "latency": statistics.median(latencies),
        "tokens": tokens / len(requests),
        "generated": engine.generated / len(requests),
        "prefilled": engine.prefilled / len(requests),
        "trials": engine.trials / len(requests),
        "completions": len(requests),
    }


def _parallel(settings: ExitSettings) -> Way:
    """Complete with the engine of our server."""

    def way(engine: Counted) -> Complete:
        wrapped = EarlyExitEngine(engine, settings, metrics=Metrics(CollectorRegistry()))

        async def complete(request: RolloutRequest) -> int:
            params = SamplingParams(
                max_tokens=LIMIT,
                temperature=0.0,
                output_kind=RequestOutputKind.DELTA,
                seed=0,  # greedy needs none, but without one trials are refused under load
            )
            outputs = wrapped.generate(_prompt(request.prompt_ids), params, _new_id("run"))
            return sum([len(output.outputs[0].token_ids) async for output in outputs])

        return complete

    return way


def _sequential(engine: Counted) -> Complete:
    """Complete with one stream per trial and another after it."""
    tokenizer = engine.renderer.tokenizer
    chains = Chains(tokenizer, CONFIDENCE, format_of(tokenizer, CONFIDENCE.closing_text), False)

    async def complete(request: RolloutRequest) -> int:
        chain = Chain(request)
        while chain.phase != "done":
            params = chains.params(chain)
            params.output_kind = RequestOutputKind.DELTA  # clients see the tokens here, too
            request_id = _new_id("probe" if chain.phase == "trial" else "run")
            whole = None
            async for output in engine.generate(_prompt(chains.prompt(chain)), params, request_id):
                if whole is None:
                    whole = output
                else:
                    whole.add(output, aggregate=True)
            chains.take(chain, whole)
        return len(chain.ids)

    return complete


def _prompt(ids: Sequence[int]) -> dict[str, Any]:
    return {"type": "token", "prompt_token_ids": list(ids)}


def _new_id(role: str) -> str:
    return f"{next(_numbers)}-{role}-0"


_numbers = itertools.count()


def _report(found: Mapping[str, Any]) -> None:
    print(f"\n{found['setting']}, commit {found['made']['commit']}\n")
    for peer in ("sequential", "none"):
        print(compare(found["probing"], METRICS, title="trials", ours="parallel", peer=peer))
    print("\n| declined trials per completion | seconds of a run, median | generated | prefilled |")
    print("|---|---|---|---|")
    for most in map(str, TRIALS):
        runs = [each[most] for each in found["declined"]]
        names = ("trials", "seconds", "generated", "prefilled")
        row = [number(statistics.median(run[name] for run in runs)) for name in names]
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
