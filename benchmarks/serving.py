"""Our server with policy `none` against stock vLLM: alternating runs of vLLM's own benchmark.

Both servers are up at once and idle in turn, so that both see the same machine. A figure is the
median over pairs of the ratio ours/stock, with the range of those ratios.
"""

import argparse
import asyncio
import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm
from vllm.benchmarks.serve import add_cli_args, main_async

from benchmarks.reports import commit, compare, keep, machine
from tests.integration.servers import MODEL, OURS, STOCK, Server, running
from training.demo.world import sample_problems

METRICS = {
    "output_throughput": "output tokens per second",
    "median_ttft_ms": "time to first token, ms",
    "median_itl_ms": "inter-token latency, ms",
}


def main() -> None:
    """Run the pairs, print the table, and keep every figure in outputs/bench/serving.json."""
    args = _arguments()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        args.problems = write_problems(folder / "problems.jsonl", args.prompts)
        ours = stack.enter_context(running(OURS, folder / "ours.log"))
        flags = ("--no-enable-chunked-prefill",)  # what ours sets on CPUs
        stock = stack.enter_context(running(STOCK, folder / "stock.log", *flags))
        servers = {"stock": stock, "ours": ours}
        for server in servers.values():
            measure(server, args)  # warm-up
        pairs = [pair(servers, args, index) for index in tqdm(range(args.pairs), unit="pair")]
    report(pairs, args)


def write_problems(path: Path, count: int) -> Path:
    """Problems of the demo world, as vLLM's benchmark reads them."""
    rows = [json.dumps({"prompt": each.prompt}) for each in sample_problems(0, "test", count)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def pair(servers: dict[str, Server], args: argparse.Namespace, index: int) -> dict[str, Any]:
    """One run of each, the order alternating."""
    order = list(servers) if index % 2 else list(servers)[::-1]
    return {name: measure(servers[name], args) for name in order}


def measure(server: Server, args: argparse.Namespace) -> dict[str, float]:
    """One run of vLLM's serving benchmark."""
    parser = argparse.ArgumentParser()
    add_cli_args(parser)
    options = parser.parse_args(
        [
            *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions"),
            *("--base-url", server.url, "--model", "demo-base", "--tokenizer", str(MODEL)),
            *("--dataset-name", "custom", "--dataset-path", str(args.problems)),
            *("--custom-output-len", str(args.tokens), "--num-prompts", str(args.prompts)),
            *("--max-concurrency", str(args.concurrency), "--ignore-eos", "--disable-tqdm"),
        ]
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        result = asyncio.run(main_async(options))
    if result["failed"]:
        _, _, errors = printed.getvalue().partition("Failed")
        raise RuntimeError(f"{result['failed']} requests failed at {server.url}: {errors[:2000]}")
    return {name: float(result[name]) for name in METRICS}


def report(pairs: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Print the table and write the figures."""
    print(
        f"\n{args.pairs} pairs of {args.prompts} requests, demo problems, {args.tokens} tokens "
        f"out, {args.concurrency} at once; demo-base, float32, {machine()}, commit {commit()}"
    )
    print(compare(pairs, METRICS, title="policy `none`", ours="ours", peer="stock"))
    keep("serving", pairs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9, help="alternating runs of each server")
    parser.add_argument("--prompts", type=int, default=96, help="requests in a run")
    parser.add_argument("--tokens", type=int, default=128, help="output tokens of a request")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at once")
    return parser.parse_args()


if __name__ == "__main__":
    main()
