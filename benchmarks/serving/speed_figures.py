"""The figures of docs/speed.md, computed from the measurements: medians, ranges, intervals."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.serving.serving import METRICS
from benchmarks.shared.reports import mean_ratio
from training.evaluation.intervals import RESAMPLES, difference_interval, resamples_of

__all__ = ["figures"]

Runs = Sequence[Mapping[str, Mapping[str, Any]]]
"""Rounds: runs by way; figures by name."""


def figures(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures by part; `measured` has the figures of each part from outputs/bench."""
    serving, probing = measured["serving"], measured["probing"]
    loops = {name: each for name, each in serving.items() if "rounds" in each}
    return {
        "made": {name: each["made"] for name, each in measured.items()},
        "served": {
            name: {
                "setting": each["setting"],
                "rounds": len(each["rounds"]),
                "ways": _against(each["rounds"], "stock", tuple(METRICS)),
            }
            for name, each in loops.items()
        },
        "accuracy": _accuracy(
            [runs for name, each in loops.items() if name in GRADED for runs in each["rounds"]]
        ),
        "failures": _failures(loops),
        "memory": serving.get("memory"),
        "probing": {
            "setting": probing["setting"],
            "rounds": len(probing["probing"]),
            "sequential": compared(probing["probing"], "parallel", "sequential", TRIAL),
            "none": compared(probing["probing"], "parallel", "none", TRIAL),
            "declined": _declined(probing["declined"]),
        },
        "wrapper": _wrapper(measured["wrapper"]),
        "hotpath": measured["hotpath"],
    }


GRADED = ("confidence, closed loop", "confidence, open loop")
TRIAL = ("seconds", "latency", "tokens", "generated", "prefilled")


def _against(rounds: Runs, peer: str, names: Sequence[str]) -> dict[str, Any]:
    ways = [way for way in rounds[0] if way != peer]
    return {way: compared(rounds, way, peer, names) for way in sorted(ways)}


def compared(rounds: Runs, ours: str, peer: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the medians of both for each figure, and the ratio ours/peer with its interval."""
    found = {}
    for name in names:
        above, below = ([float(runs[way][name]) for runs in rounds] for way in (ours, peer))
        ratios = [a / b for a, b in zip(above, below, strict=True) if b]
        found[name] = {
            "ours": statistics.median(above),
            "peer": statistics.median(below),
            **asdict(mean_ratio(ratios)),
        }
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _accuracy(rounds: Runs) -> dict[str, Any]:
    """Return each way's accuracy, and its paired difference to stock with its interval."""
    found = {}
    for way in sorted(rounds[0]) if rounds else []:
        hits = [int(hit) for runs in rounds for hit in runs[way]["hits"]]
        base = [int(hit) for runs in rounds for hit in runs["stock"]["hits"]]
        gains = [[mine - theirs] for mine, theirs in zip(hits, base, strict=True)]
        difference = difference_interval(gains, resamples_of(len(gains), RESAMPLES, seed=0))
        assert difference is not None  # there is at least one problem
        tokens = [float(runs[way]["tokens"]) for runs in rounds]
        trials = sum(float(runs[way]["trial tokens"]) for runs in rounds) / len(hits)
        stock = statistics.fmean(float(runs["stock"]["tokens"]) for runs in rounds)
        found[way] = {
            "problems": len(hits),
            "accuracy": statistics.fmean(hits),
            "difference": difference.value,
            "low": difference.low,
            "high": difference.high,
            "tokens of stock": statistics.fmean(tokens) / stock,
            "with trials": (statistics.fmean(tokens) + trials) / stock,
        }
    return found


def _failures(loops: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}, round {index + 1}, {way}: {run['failed']} requests failed: {run['errors'][:1]}"
        for name, each in loops.items()
        for index, runs in enumerate(each["rounds"])
        for way, run in runs.items()
        if run["failed"]
    ]


def _declined(rounds: Runs) -> dict[str, Any]:
    """Return the cost of declined trials over runs without any, in the same round."""
    costs: dict[str, list[float]] = {name: [] for name in COSTS}
    for runs in rounds:
        for most, run in runs.items():
            if most != "0" and run["trials"]:
                for name, value in _cost(run, runs["0"]).items():
                    costs[name].append(value)
    medians = {
        most: {
            name: statistics.median(float(runs[most][name]) for runs in rounds)
            for name in ("trials", "seconds", "latency", "generated", "prefilled")
        }
        for most in sorted(rounds[0])
    }
    return {"runs": medians, "per trial": {name: spread(values) for name, values in costs.items()}}


COSTS = ("generated", "prefilled", "busy ms", "latency ms")


def _cost(run: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    """Return the cost of one trial."""
    added = {name: (run[name] - base[name]) / run["trials"] for name in run}
    return {
        "generated": added["generated"],
        "prefilled": added["prefilled"],
        "busy ms": 1000 * added["seconds"] / run["completions"],
        "latency ms": 1000 * added["latency"],
    }


def _wrapper(measured: Mapping[str, Any]) -> dict[str, Any]:
    bare = measured["microseconds"]["bare"]
    return {
        "setting": measured["setting"],
        "ways": {
            name: {
                "microseconds": spread(values),
                "added": spread([a - b for a, b in zip(values, bare, strict=True)]),
                "KiB": measured["bytes"][name] / 1024,
            }
            for name, values in measured["microseconds"].items()
        },
    }
