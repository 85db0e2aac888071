"""Resumable pipeline of the demo model: train, measure, calibrate, write the card."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from training.demo.card import write_card
from training.demo.measure import measure, sampling
from training.demo.pretrain import BaseRecipe, train_base
from training.demo.world import sample_problems
from training.files import write_text
from training.rollouts.calibration import calibrate, write_baseline
from training.rollouts.offline import Engine

__all__ = ["run_demo"]

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
