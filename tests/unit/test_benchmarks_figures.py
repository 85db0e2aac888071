"""The figures of docs/speed.md, the page that is made of them, and what they are read from."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving.hotpath import owner, profile
from benchmarks.serving.speed_figures import compared, figures
from benchmarks.shared.processes import rss, used
from benchmarks.shared.sampled import Sampler
from tests.support.servers import ROOT

MADE = {"commit": "abc", "machine": "2 CPU cores", "date": "then", "load": 0.1, "vllm": "0.31.0"}


def run(scale: float, hits: list[bool], **others: Any) -> dict[str, Any]:
    """A run of the server, `scale` times as fast as another."""
    return {
        "tokens per second": 1000 * scale,
        "requests per second": 10 * scale,
        "answer, p50 ms": 500 / scale,
        "first token, p50 ms": 50,
        "between tokens, p50 ms": 5,
        "tokens": 100,
        "API process, µs per token": 150,
        "trial tokens": 0,
        "failed": 0,
        "errors": [],
        "hits": hits,
    } | others


def trials(seconds: float, generated: float, count: float) -> dict[str, float]:
    return {
        "seconds": seconds,
        "latency": seconds / 10,
        "tokens": 50,
        "generated": generated,
        "prefilled": generated / 2,
        "trials": count,
        "completions": 10,
    }


def measured() -> dict[str, dict[str, Any]]:
    yes, no = [True] * 4, [True, True, True, False]
    graded = [
        {
            "stock": run(1, yes),
            "confidence": run(2, no, **{"tokens": 60, "trial tokens": 40}),
        }
    ]
    pairs = [{"stock": run(1, no), "none": run(scale, no)} for scale in (0.9, 0.98, 1.1)]
    levels = {"stock": run(1, yes), "none": run(1, yes), "confidence": run(2, yes)}
    loops = {
        "none, closed loop": pairs,
        "none, open loop": pairs,
        "confidence, closed loop": graded,
        "confidence, open loop": graded,
        "concurrency 1": [levels],
        "concurrency 16": [levels],
    }
    ways = {name: {"MiB per 1000 streams": 20.0, "MiB idle": 900.0} for name in ("stock", "none")}
    serving: dict[str, Any] = {
        name: {"setting": "so", "rounds": rounds} for name, rounds in loops.items()
    }
    probing = {
        "none": trials(4, 90, 0),
        "parallel": trials(2, 60, 1),
        "sequential": trials(3, 55, 1),
    }
    declined = {"0": trials(4, 90, 0), "2": trials(5, 102, 2)}
    return {
        "serving": serving | {"made": MADE, "memory": {"setting": "open", "ways": ways}},
        "probing": {"made": MADE, "setting": "so", "probing": [probing], "declined": [declined]},
        "wrapper": {
            "made": MADE,
            "setting": "scripted",
            "microseconds": {
                "bare": [4.0, 5.0, 4.0],
                "none": [10.0, 12.0, 11.0],
                "confidence, trials decline": [20.0, 21.0, 22.0],
            },
            "bytes": {"bare": 4096, "none": 8192, "confidence, trials decline": 16384},
        },
        "hotpath": {
            "made": MADE,
            "setting": "so",
            "profiles": {
                "none": {
                    "samples": 9,
                    "microseconds": 150,
                    "parts": {"service": 12.5},
                    "functions": {},
                }
            },
        },
    }


def test_ratios_are_of_runs_in_the_same_round() -> None:
    rounds = [
        {"ours": {"speed": 2.0}, "stock": {"speed": 1.0}},
        {"ours": {"speed": 9.0}, "stock": {"speed": 10.0}},
        {"ours": {"speed": 3.0}, "stock": {"speed": 3.0}},
    ]
    found = compared(rounds, "ours", "stock", ["speed"])["speed"]
    assert found["ours"] == found["peer"] == 3.0
    assert found["value"] == pytest.approx(1.8 ** (1 / 3))
    # the logarithms of 2, 0.9 and 1: mean and 4.303 standard errors
    assert found["low"] == pytest.approx(0.414, abs=1e-3)
    assert found["high"] == pytest.approx(3.574, abs=1e-3)


def test_accuracy_is_paired_by_problem_over_both_loops() -> None:
    found = figures(measured())["accuracy"]
    assert found["stock"]["accuracy"] == 1
    assert found["confidence"]["problems"] == 8
    assert found["confidence"]["accuracy"] == 0.75
    assert found["confidence"]["difference"] == -0.25
    assert found["confidence"]["low"] < -0.25 < found["confidence"]["high"]
    assert found["confidence"]["tokens of stock"] == pytest.approx(0.6)
    assert found["confidence"]["with trials"] == pytest.approx(0.7)


def test_a_declined_trial_costs_what_it_adds_over_runs_without() -> None:
    cost = figures(measured())["probing"]["declined"]["per trial"]
    assert cost["generated"]["median"] == 6  # 12 more, two trials
    assert cost["busy ms"]["median"] == 50  # a second for two trials of ten completions each
    assert cost["latency ms"]["median"] == pytest.approx(50)


def test_the_wrappers_cost_is_what_it_adds_in_the_same_round() -> None:
    added = figures(measured())["wrapper"]["ways"]["none"]["added"]
    assert added == {"median": 7.0, "low": 6.0, "high": 7.0}


def test_a_sample_counts_for_the_innermost_part_that_is_known() -> None:
    ours, vllm = (
        (f"{ROOT}/service/engine/passthrough.py", "PassthroughRequest.outputs"),
        ("/x/vllm/v1/e.py", "get"),
    )
    helper = ("/usr/lib/python3.11/asyncio/queues.py", "Queue.get")
    assert owner([ours, vllm, helper]) == ("vLLM: engine client", "e: get")
    assert owner([vllm, ours, helper]) == ("service", "passthrough: PassthroughRequest.outputs")
    assert owner([(f"{ROOT}/service/cli.py", "main"), helper]) == ("event loop, other", "")
    assert owner([helper]) == ("event loop, other", "")
    found = profile([([ours, helper], 3), ([vllm], 1)], 100.0)
    assert found["parts"] == {"service": 75.0, "vLLM: engine client": 25.0}
    assert found["functions"] == {"passthrough: PassthroughRequest.outputs": 75.0}


def spin() -> int:
    return sum(value * value for value in range(10_000))


def test_the_sampler_sees_what_is_running(tmp_path: Path) -> None:
    sampler = Sampler()
    sampler.start()
    try:
        while sum(sampler.counts.values()) < 5:
            spin()
    finally:
        sampler.stop()
    sampler.write(tmp_path / "stacks.json")
    rows = json.loads((tmp_path / "stacks.json").read_text())
    assert sum(row["count"] for row in rows) >= 5
    assert any("spin" in name for row in rows for _, name in row["stack"])
    assert not sampler.counts


def test_processor_time_of_a_process_and_of_those_below_it() -> None:
    before = used(os.getpid())
    while used(os.getpid()).api - before.api < 0.05:
        spin()
    code = "while True: pass"
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        while used(os.getpid()).since(before).engine < 0.1:
            spin()
    finally:
        child.kill()
        child.wait()
    assert rss(os.getpid()) > 2**20
