"""Cost of the wrapper around vLLM's engine client, per token and per open stream.

The same scripted engine is read directly, as stock vLLM's chat layer reads it, and through
`EarlyExitEngine` under each policy, in alternating rounds; times are processor time of this
process. The scripted reasoning has a step marker about every 25 tokens, and all trials decline.
"""

import argparse
import asyncio
import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry
from tqdm import tqdm
from transformers import AutoTokenizer
from vllm.sampling_params import RequestOutputKind, SamplingParams

from benchmarks.serving.scripted_engine import ScriptedClient
from benchmarks.shared.arguments import parser_of
from benchmarks.shared.reports import commit, keep, machine, made, number
from service.engine.client import EarlyExitEngine
from service.params.limits import ProbeLimits
from service.records.metrics import Metrics
from service.streams.detokenizer import TokenTexts
from stepgrpo_core import ExitSettings
from tests.support.servers import MODEL
from training.demo.world import sample_problem, sample_trace

BARE = "bare"
WAYS: dict[str, ExitSettings | None] = {
    BARE: None,
    "none": ExitSettings(),
    "confidence, no trials": ExitSettings(policy="confidence", max_probes=0),
    "confidence, trials decline": ExitSettings(policy="confidence", max_probes=1000),
}


@dataclass(frozen=True, slots=True)
class Script:
    """Reasoning of the demo model, repeated to the wanted length, then an answer."""

    tokenizer: Any
    prompt_ids: list[int]
    ids: list[int]
    texts: list[str]
    trial: list[int]


def main() -> None:
    """Print the tables, and write all figures to outputs/bench/wrapper.json."""
    parser = parser_of(__doc__)
    parser.add_argument("--streams", type=int, default=32, help="requests side by side (32)")
    parser.add_argument("--tokens", type=int, default=600, help="tokens of each (600)")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (7)")
    parser.add_argument(
        "--open", type=int, default=200, help="open streams whose memory is measured (200)"
    )
    args = parser.parse_args()
    where, script = made(), make_script(args.tokens)
    times = measure(script, args.streams, args.rounds)
    found = figures(times, held_by_streams(script, args.open), args)
    report(found)
    keep("wrapper", {"made": where, **found})


def make_script(tokens: int) -> Script:
    """Return a stream of `tokens` tokens."""
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
    rng = random.Random(0)
    text = "<think>\n"
    ids: list[int] = []
    while len(ids) < tokens - 8:
        pieces = sample_trace(sample_problem(rng, "test"), rng)
        thinking, _, _ = "".join(piece.text for piece in pieces).partition("</think>")
        text += thinking.removeprefix("<think>\n") + "\n\nWait, "
        ids = tokenizer.encode(text, add_special_tokens=False)
    ids = ids[: tokens - 8] + tokenizer.encode("\n</think>\n\n\\boxed{5}", add_special_tokens=False)
    prompt = tokenizer.encode("<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n")
    texts = TokenTexts(tokenizer, prompt, skip_special_tokens=True).texts(ids)
    trial = tokenizer.encode("{47}\n</think>", add_special_tokens=False)
    return Script(tokenizer, prompt, ids, texts, trial)


def measure(script: Script, streams: int, rounds: int) -> dict[str, list[float]]:
    """Return processor microseconds per delivered token by way and round, after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for count in tqdm(range(rounds + 1), unit="round"):
        for name in list(WAYS)[:: -1 if count % 2 else 1]:
            spent, delivered = uvloop.run(run(script, WAYS[name], streams))
            if count:
                times[name].append(1e6 * spent / delivered)
    return times


async def run(script: Script, settings: ExitSettings | None, streams: int) -> tuple[float, int]:
    """Return processor seconds and delivered tokens of `streams` concurrent requests."""
    client = ScriptedClient(script.tokenizer, script.ids, script.texts, script.trial)
    engine = client if settings is None else wrapped(client, settings)
    gc.collect()
    started = time.process_time()
    counts = await asyncio.gather(
        *(consume(requested(engine, script, number)) for number in range(streams))
    )
    spent = time.process_time() - started
    await client.close()
    assert counts == [len(script.ids)] * streams
    return spent, sum(counts)


def wrapped(client: ScriptedClient, settings: ExitSettings) -> Any:
    """Return the wrapper with its own counters; every trial is sent."""
    registry, limits = CollectorRegistry(), ProbeLimits(probe_load=1.0, limit_probes=1000)
    return EarlyExitEngine(client, settings, metrics=Metrics(registry), limits=limits)


def requested(engine: Any, script: Script, number: int) -> AsyncIterator[Any]:
    """Generate one request as the chat layer does."""
    params = SamplingParams(max_tokens=len(script.ids), output_kind=RequestOutputKind.DELTA)
    prompt = {"type": "token", "prompt_token_ids": script.prompt_ids}
    outputs: AsyncIterator[Any] = engine.generate(prompt, params, f"r{number}")
    return outputs


async def consume(outputs: AsyncIterator[Any]) -> int:
    """Return the number of tokens delivered."""
    return sum([len(output.outputs[0].token_ids) async for output in outputs])


def held_by_streams(script: Script, streams: int) -> dict[str, float]:
    """Return Python bytes per open stream with all but its last token delivered, by way."""
    return {name: uvloop.run(held(script, settings, streams)) for name, settings in WAYS.items()}


async def held(script: Script, settings: ExitSettings | None, streams: int) -> float:
    """Return the bytes of one way that its streams hold while clients wait for the last token."""
    client = ScriptedClient(script.tokenizer, script.ids, script.texts, script.trial)
    engine = client if settings is None else wrapped(client, settings)
    gc.collect()
    tracemalloc.start()
    try:
        tasks = [
            asyncio.create_task(hold(requested(engine, script, number), len(script.ids) - 1))
            for number in range(streams)
        ]
        generators = await asyncio.gather(*tasks)
        await client.close()
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for outputs in generators:
        await outputs.aclose()
    await asyncio.sleep(0.1)  # a separate task frees what a stream holds
    return size / streams


async def hold(outputs: Any, tokens: int) -> Any:
    """Read so many tokens, then keep the stream open."""
    count = 0
    while count < tokens:
        count += len((await anext(outputs)).outputs[0].token_ids)
    return outputs


def figures(
    times: Mapping[str, list[float]], sizes: Mapping[str, float], args: argparse.Namespace
) -> dict[str, Any]:
    """Return all figures."""
    return {
        "setting": f"{args.streams} scripted streams of {args.tokens} tokens, {args.rounds} rounds",
        "microseconds": times,
        "bytes": sizes,
    }


def report(found: Mapping[str, Any]) -> None:
    """Print the table."""
    print(f"\n{found['setting']}, 1 core of {machine()}, commit {commit()}\n")
    print("| way | µs per token, median | min to max | KiB per open stream |\n|---|---|---|---|")
    for name, spent in found["microseconds"].items():
        middle, low, high = map(number, (statistics.median(spent), min(spent), max(spent)))
        size = number(found["bytes"][name] / 1024)
        print(f"| {name} | {middle} | {low} to {high} | {size} |")


if __name__ == "__main__":
    main()
