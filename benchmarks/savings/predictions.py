"""Accuracy of the predicted lengths without exits, on held-out runs.

Completions of a real model without exits are split into random halves: one calibrates, the other
is cut where the server's policy `confidence` would exit, or after a number of tokens, and its true
length is known. The calibrations compared hold lengths alone, steps as well, and confidences as
well. The score is the interval's width plus twenty times the distance outside, so lower is better
(Gneiting and Raftery 2007).
"""

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.shared.arguments import parser_of
from benchmarks.shared.reports import ROOT, keep, made
from stepgrpo_core import Baseline, ExitReason, ExitSettings, Prediction, fit_baseline
from stepgrpo_core.savings.baseline import LEVEL, UNRECORDED, Conditions, Run

__all__ = ["CALIBRATIONS", "Case", "after", "evaluate", "figures"]

SETTINGS = ExitSettings(policy="confidence")
CALIBRATIONS: Mapping[str, Conditions] = {
    "tokens": UNRECORDED,
    "tokens, steps": Conditions.of(SETTINGS, trials=False),
    "tokens, steps, confidence": Conditions.of(SETTINGS),
}
"""The conditions that each calibration holds."""
AFTER_TOKENS = (60, 100, 150)


@dataclass(frozen=True, slots=True)
class Case:
    """A run and the position of its cut; `confidence` as in `Baseline.predict`."""

    run: Run
    tokens: int
    steps: int
    confidence: float | None = None

    def predicted(self, baseline: Baseline) -> Prediction | None:
        """Return the calibration's prediction for the cut."""
        return baseline.predict(
            self.run.prompt_tokens,
            longer_than=self.tokens,
            steps=self.steps,
            confidence=self.confidence,
        )


def after(runs: Sequence[Run], tokens: int) -> list[Case | None]:
    """Cut every run that is longer than `tokens` at that length."""
    return [
        Case(run, tokens, 1 + sum(start < tokens for start in run.starts or ()))
        if run.completion_tokens > tokens
        else None
        for run in runs
    ]


def evaluate(cases: Sequence[Case | None], runs: Sequence[Run], splits: int) -> dict[str, Any]:
    """Return figures by calibration: `cases[i]` is a cut of `runs[i]`, None if that is not cut."""
    judged: dict[str, list[tuple[Prediction, int]]] = {name: [] for name in CALIBRATIONS}
    for seed in range(splits):
        order = list(range(len(runs)))
        random.Random(seed).shuffle(order)
        half = [runs[place] for place in order[: len(order) // 2]]
        chosen = [cases[place] for place in order[len(order) // 2 :]]
        for name, conditions in CALIBRATIONS.items():
            baseline = fit_baseline("", {}, half, conditions)
            for case in filter(None, chosen):
                prediction = case.predicted(baseline)
                if prediction is not None:
                    judged[name].append((prediction, case.run.completion_tokens))
    return {name: figures(each) for name, each in judged.items()}


def figures(judged: Sequence[tuple[Prediction, int]]) -> dict[str, float]:
    """Return the figures of predictions with true lengths, in tokens except for shares."""
    outside = [max(each.low - true, true - each.high, 0) for each, true in judged]
    widths = [each.high - each.low for each, _ in judged]
    return {
        "predictions": len(judged),
        "coverage": fmean(each == 0 for each in outside),
        "width": fmean(widths),
        "score": fmean(widths) + 2 / (1 - LEVEL) * fmean(outside),
        "absolute error": fmean(abs(each.tokens - true) for each, true in judged),
        "bias": fmean(each.tokens - true for each, true in judged),
    }


def main() -> None:
    """Generate, cut, predict; print, and write outputs/bench/predictions.json."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "demo-base")
    parser.add_argument(
        "--problems", type=int, default=4000, help="of the demo world's test split (4000)"
    )
    parser.add_argument("--splits", type=int, default=10, help="in halves, at random (10)")
    args = parser.parse_args()
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    exits, runs = _generate(args.model, args.problems)
    found = {"at the exits of confidence": evaluate(exits, runs, args.splits)} | {
        f"after {tokens} tokens": evaluate(after(runs, tokens), runs, args.splits)
        for tokens in AFTER_TOKENS
    }
    origin = made()
    print(f"\n{len(runs)} runs, {args.splits} splits in halves; commit {origin['commit']}")
    for title, rows in found.items():
        print(f"\n| {title} | coverage, % | width | score | absolute error | bias |")
        print("|---|---|---|---|---|---|")
        for name, row in rows.items():
            numbers = (row[key] for key in ("width", "score", "absolute error", "bias"))
            cells = " | ".join(f"{each:.1f}" for each in (100 * row["coverage"], *numbers))
            print(f"| {name} | {cells} |")
    keep("predictions", {"made": origin, "runs": len(runs), "figures": found})


def _generate(model: Path, problems: int) -> tuple[list[Case | None], list[Run]]:
    """Return runs of a model, and the positions where the server would cut them."""
    from training.demo.measure import sampling  # noqa: PLC0415
    from training.demo.world import sample_problems  # noqa: PLC0415
    from training.rollouts.calibration import complete, record  # noqa: PLC0415 - loads vLLM
    from training.rollouts.offline import Engine  # noqa: PLC0415

    engine, params = Engine.load(str(model), dtype="float32"), sampling(0.6)
    messages = [each.prompt for each in sample_problems(0, "test", problems)]
    generations = complete(engine, messages, samples=1, params=params)
    runs = record(engine, generations, SETTINGS, trials=True)
    exits = engine.exits(generations, SETTINGS, params)
    return [
        Case(run, each.probes[-1].position, each.outcome.steps, each.outcome.confidence)
        if each.outcome.reason is ExitReason.CONFIDENT
        else None
        for run, each in zip(runs, exits, strict=True)
    ], runs


if __name__ == "__main__":
    main()
