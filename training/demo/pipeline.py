"""Resumable pipeline of the demo model: train, measure, calibrate, write the card."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from training.demo.measure import measure, sampling
from training.demo.pretrain import BaseRecipe, train_base
from training.demo.world import sample_problems
from training.files import write_text
from training.rollouts.calibration import calibrate, write_baseline
from training.rollouts.offline import Engine

__all__ = ["run_demo", "write_card"]

CALIBRATION_PROBLEMS = 2_000


def run_demo(output: Path, *, seed: int, steps: int | None, problems: int) -> None:
    """Produce `output`/demo-base with weights, measurements, calibration and card.

    An interrupted run resumes: training continues from its last checkpoint, and existing files are
    kept. Raises ValueError if `output` holds another recipe.
    """
    recipe = BaseRecipe(seed=seed)
    if steps is not None:
        recipe = dataclasses.replace(recipe, steps=steps)
    model = output / "demo-base"
    model.mkdir(parents=True, exist_ok=True)
    _check_recipe(output / "recipe.json", recipe)
    if not (model / "model.safetensors").exists():
        _step("Training demo-base from scratch")
        started = time.monotonic()
        train_base(recipe, model, output / "checkpoints")
        _write(output / "training.json", {"seconds": round(time.monotonic() - started)})
    results = output / "measurements.json"
    calibration = model / "calibration.json"
    if not results.exists() or not calibration.exists():
        engine = Engine.load(str(model), dtype="float32")
        if not results.exists():
            _step(f"Measuring on {problems} unseen problems")
            _write(results, measure(engine, problems=problems, seed=seed))
        _step(f"Calibrating on {CALIBRATION_PROBLEMS} other problems")
        messages = [p.prompt for p in sample_problems(seed, "validation", CALIBRATION_PROBLEMS)]
        baseline = calibrate(engine, "demo-base", messages, samples=1, params=sampling(0.6))
        write_baseline(baseline, calibration)
    write_card(model, json.loads(results.read_text(encoding="utf-8")), recipe)
    print((model / "README.md").read_text(encoding="utf-8"))


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


def _check_recipe(path: Path, recipe: BaseRecipe) -> None:
    wanted = dataclasses.asdict(recipe)
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != wanted:
            raise ValueError(f"{path} holds another recipe, {found}; use another --output")
    _write(path, wanted)


def _write(path: Path, data: dict[str, Any]) -> None:
    write_text(path, json.dumps(data, indent=1) + "\n")


def _step(title: str) -> None:
    print(f"\n== {title}", flush=True)
