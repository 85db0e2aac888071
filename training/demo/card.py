"""Model card of the demo model, generated from its measurements."""

from pathlib import Path
from typing import Any

from training.demo.pretrain import BaseRecipe

__all__ = ["write_card"]


def write_card(model: Path, results: dict[str, Any], recipe: BaseRecipe) -> None:
    """Write README.md into the model's folder; all numbers come from `results`."""
    rows = "\n".join(
        _row(f"T = {t}, {name}", results[f"T={t}"][name])
        for t in (0.6, 1.0)
        for name in ("vanilla", "confidence")
    )
    cool = results["T=0.6"]
    levels = "\n".join(
        _row(f"T = 0.6, {level}", summary) for level, summary in cool["vanilla by level"].items()
    )
    card = f"""---
license: apache-2.0
library_name: transformers
---
# demo-base

A Qwen3 of {recipe.layers} layers and hidden size {recipe.hidden_size}, trained from scratch on \
the demo world
(`training/demo/world.py`): it computes chains of additions and subtractions,
and then re-checks them too often. Some of its attempts at a problem are hasty: several operations
per line, which is shorter and more often wrong. Made by `stepgrpo-train demo base`:
{recipe.steps} steps of {recipe.batch_size} careful traces, then {recipe.hasty_steps} and \
{recipe.practised_steps} of traces
with hasty attempts, seed {recipe.seed}.
It is a test model that can only do its own arithmetic.

## Measured
{results["problems"]} problems of the test split, which no training trace contains; vLLM on CPU, \
float32, at most {results["max_tokens"]} tokens; exit policy `confidence` with its defaults.

| sampling, policy | accuracy (95 % interval) | tokens | steps |
|---|---|---|---|
{rows}
{levels}

At T = 0.6 the exit saves {cool["saved"]:.1%} of the tokens, {cool["saved_net"]:.1%} net of \
{cool["probes"]:.1f} probes per problem; at T = 1.0 {results["T=1.0"]["saved"]:.1%}, \
{results["T=1.0"]["saved_net"]:.1%} net. Its accuracy differs by \
{_points(cool)} points at T = 0.6 and {_points(results["T=1.0"])} at T = 1.0 (same problems,
paired 95 % interval).

## Calibration of the confidence
Every step boundary of the completions without exits at T = 0.6 was probed; `complete` means that
all operations of the problem had been written. The confidence is the geometric mean over the tokens
of the induced answer, of which only the digits are uncertain: it ranks the answers, and is not a
probability.

| derivation | probes | mean confidence | accuracy of the induced answer |
|---|---|---|---|
{_reliability(results["reliability"])}
"""
    (model / "README.md").write_text(card, encoding="utf-8")


def _points(comparison: dict[str, Any]) -> str:
    low, high = comparison["accuracy_difference_interval"]
    return f"{100 * comparison['accuracy_difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _row(name: str, summary: dict[str, Any]) -> str:
    low, high = summary["accuracy_interval"]
    accuracy = f"{summary['accuracy']:.1%} ({low:.1%} to {high:.1%})"
    return f"| {name} | {accuracy} | {summary['tokens']:.0f} | {summary['steps']:.2f} |"


def _reliability(tables: dict[str, Any]) -> str:
    lines = []
    for state, table in tables.items():
        for name, row in (("all", table["all"]), *table["by confidence"].items()):
            if row["trials"]:
                lines.append(
                    f"| {state}, {name} | {row['trials']} | {row['confidence']:.2f} "
                    f"| {row['accuracy']:.2f} |"
                )
    return "\n".join(lines)
