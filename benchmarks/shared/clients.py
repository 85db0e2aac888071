"""Load on a server from vLLM's serving benchmark, and its cost to the server's processes."""

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
    """Problems, limits and arrival pattern of the requests."""

    problems: Sequence[Problem]
    path: Path
    """The problems in a file for vLLM's benchmark."""
    tokens: int
    """Tokens of an answer: at most, or exactly with `fixed`."""
    fixed: bool = False
    concurrency: int | None = None
    """Closed loop: maximum number of concurrent requests."""
    rate: float | None = None
    """Open loop: mean requests per second of a Poisson process; `seed` determines the arrivals."""
    temperature: float = 0.6
    seed: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request bodies."""


Run = dict[str, Any]
"""Figures by name: single numbers, and `hits`, one bool per problem in their order."""


def write_problems(path: Path, problems: Sequence[Problem]) -> Path:
    """Write problems in the format of vLLM's benchmark."""
    rows = [json.dumps({"prompt": each.prompt}) for each in problems]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def measure(server: Server, traffic: Traffic) -> Run:
    """Make one run; failed requests are counted, and their errors are in the figures."""
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
        *("--skip-chat-template", "--disable-shuffle", "--no-oversample"),  # the server applies it
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
    """Return the trial tokens so far; none at a stock server."""
    return total(server.metrics(), "probe_tokens")
