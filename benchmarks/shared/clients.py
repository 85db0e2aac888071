"""Load on a server, by vLLM's own serving benchmark, and what it cost the server's processes."""

import argparse
import asyncio
import contextlib
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vllm.benchmarks.serve import add_cli_args, main_async

from benchmarks.shared.processes import used
from stepgrpo_core import final_answer
from tests.support.servers import MODEL, Server, total
from training.demo.world import Problem

__all__ = ["Run", "Traffic", "measure", "write_problems"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is asked, and how it comes."""

    problems: Sequence[Problem]
    path: Path
    """The same as vLLM's benchmark reads them."""
    tokens: int
    """Of an answer: at most, or exactly with `fixed`."""
    fixed: bool = False
    concurrency: int | None = None
    """Closed loop: so many at once."""
    rate: float | None = None
    """Open loop: requests per second on average, a Poisson process; the same arrivals for the
    same `seed`."""
    temperature: float = 0.6
    seed: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the requests' bodies."""


Run = dict[str, Any]
"""Figures by name: single numbers, and `hits`, one bool per problem in their order."""


def write_problems(path: Path, problems: Sequence[Problem]) -> Path:
    """Problems as vLLM's benchmark reads them."""
    rows = [json.dumps({"prompt": each.prompt}) for each in problems]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def measure(server: Server, traffic: Traffic) -> Run:
    """One run. Failed requests are counted, and what the client printed of them is kept."""
    before, counted = used(server.process.pid), _trial_tokens(server)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        result = asyncio.run(main_async(_options(server, traffic)))
    spent, trials = used(server.process.pid).since(before), _trial_tokens(server)
    tokens = result["total_output_tokens"]
    errors = [each[:500] for each in result["errors"] if each]
    return {
        "requests per second": result["request_throughput"],
        "tokens per second": result["output_throughput"],
        "tokens": tokens / max(result["completed"], 1),
        "answer, p50 ms": 1000 * statistics.median(result["latencies"]),
        "first token, p50 ms": 1000 * statistics.median(result["ttfts"]),
        "between tokens, p50 ms": 1000
        * statistics.median([gap for gaps in result["itls"] for gap in gaps]),
        "API process, µs per token": 1e6 * spent.api / max(tokens, 1),
        "engine, µs per token": 1e6 * spent.engine / max(tokens, 1),
        "seconds": result["duration"],
        "trial tokens": trials - counted,
        "failed": result["failed"],
        "errors": errors[:5],
        "hits": [
            final_answer(text) == str(problem.answer)
            for problem, text in zip(traffic.problems, result["generated_texts"], strict=True)
        ],
    }


def _options(server: Server, traffic: Traffic) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_cli_args(parser)
    extra = {"temperature": traffic.temperature, **traffic.extra}
    options = [
        *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions"),
        *("--base-url", server.url, "--model", "demo-base", "--tokenizer", str(MODEL)),
        *("--dataset-name", "custom", "--dataset-path", str(traffic.path)),
        *("--skip-chat-template", "--disable-shuffle", "--no-oversample"),  # the server's does it
        *("--custom-output-len", str(traffic.tokens), "--num-prompts", str(len(traffic.problems))),
        *("--percentile-metrics", "ttft,tpot,itl,e2el", "--save-detailed", "--disable-tqdm"),
        *("--seed", str(traffic.seed), "--ready-check-timeout-sec", "0"),
        *("--extra-body", json.dumps(extra)),
    ]
    if traffic.fixed:
        options += ["--ignore-eos"]
    if traffic.concurrency is not None:
        options += ["--max-concurrency", str(traffic.concurrency)]
    if traffic.rate is not None:
        options += ["--request-rate", str(traffic.rate)]
    return parser.parse_args(options)


def _trial_tokens(server: Server) -> float:
    """So far; none at a stock server."""
    return total(server.metrics(), "probe_tokens")
