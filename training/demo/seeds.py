"""Differences between methods with the training run as the unit.

The table of results pools the answers of all seeds, so its intervals show the variation between
problems. Here each trained model is one observation: Welch's interval of the difference of means
over runs shows the variation between seeds. A method with one run has no such interval.

``python -m training.demo.seeds`` reads docs/results.json, or the file in its argument.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from stepgrpo_core.savings.intervals import Estimate, student_t

__all__ = ["section", "table", "welch"]

RESULTS = Path(__file__).parents[2] / "docs" / "results.json"
OURS = "**Step-GRPO**"


def welch(first: Sequence[float], second: Sequence[float] | float) -> Estimate:
    """Return the difference of the means with Welch's 95 % interval; degrees of freedom are rounded
    down.

    A single number as `second` has no error. The interval is NaN if a sample has only one run.
    """
    if isinstance(second, float):
        value, parts = fmean(first) - second, [first]
    else:
        value, parts = fmean(first) - fmean(second), [first, second]
    if any(len(each) < 2 for each in parts):
        return Estimate(value, math.nan, math.nan)
    errors = [variance(each) / len(each) for each in parts]
    spread = sum(error**2 / (len(each) - 1) for error, each in zip(errors, parts, strict=True))
    freedom = sum(errors) ** 2 / spread if spread else math.inf
    half = student_t(min(int(freedom), 10_000) if spread else 10_000) * math.sqrt(sum(errors))
    return Estimate(value, value - half, value + half)


def section(results: Mapping[str, Any]) -> str:
    """Return the section for the page of results; empty if `OURS` is not in the results."""
    if OURS not in results["rows"]:
        return ""
    return f"""## What other seeds would change
The intervals above say what other problems would change. Here every trained model is one
observation (`python -m training.demo.seeds`; Welch's intervals of 95 %, degrees of freedom rounded
down). A row with a single run differs from nothing.

{table(results)}"""


def table(results: Mapping[str, Any]) -> str:
    """Return a Markdown table: accuracy of `OURS` minus that of every other method, in points."""
    accuracies = {
        title: [100 * seed["accuracy"]["value"] for seed in row["seeds"]]
        for title, row in results["rows"].items()
    }
    ours = accuracies.pop(OURS)
    lines = [f"| {OURS} less | runs | points of accuracy |", "|---|---|---|"]
    for title, values in accuracies.items():
        untrained = title.startswith("vanilla")
        found = welch(ours, values[0] if untrained else values)
        runs = "not trained" if untrained else str(len(values))
        lines.append(f"| {title} | {runs} | {_shown(found)} |")
    return "\n".join(lines)


def _shown(found: Estimate) -> str:
    if math.isnan(found.low):
        return f"{found.value:+.1f}; one run shows no difference"
    return f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def main() -> None:
    """Print the table."""
    path = Path(sys.argv[1]) if sys.argv[1:] else RESULTS
    print(table(json.loads(path.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
