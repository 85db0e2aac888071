"""Exit thresholds on public traces of a real model: risk and savings, fixed and calibrated.

    python -m benchmarks.savings.traces FOLDER [--json FILE]

FOLDER holds `gemma-4-12b-*.parquet`: Gemma-4-12B's most likely answer letter, its probability and
the entropy at every tenth of its thinking (tobypullan/logit_cot_overthinking, commit f02cd56). The
files are not part of this repository. A trace is replayed: the policy exits at the first tenth
whose signal is above the threshold. Calibration uses a random half of the questions, and the chosen
threshold is judged on the other half, over 200 splits.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from stepgrpo_core.risk import (
    LOSSES,
    Loss,
    Reading,
    Trace,
    replay,
    risk_by_question,
    select_threshold,
)
from stepgrpo_core.savings.intervals import wilson

FIXED = (0.9, 0.95, 0.99, 0.999)
SIGNALS = {"confidence": "p", "entropy": "entropy_nats"}
SPLITS = 200


def main() -> None:
    """Print the tables, and write the figures as JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="Folder of the parquet files.")
    parser.add_argument("--json", type=Path, help="File for the figures.")
    parser.add_argument("--epsilon", type=float, default=0.05, help="Bound of the risk.")
    parser.add_argument("--delta", type=float, default=0.1, help="Chance that the bound is broken.")
    args = parser.parse_args()
    files = sorted(args.folder.glob("gemma-4-12b-*.parquet"))
    if not files:
        parser.error(f"{args.folder} holds no gemma-4-12b-*.parquet")
    found = {
        file.stem: {
            signal: figures(read_traces(file, signal), args.epsilon, args.delta)
            for signal in SIGNALS
        }
        for file in files
    }
    print(*lines(found), sep="\n")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


def read_traces(file: Path, signal: str) -> list[Trace]:
    """Return a file's runs; a higher signal means higher certainty of the answer."""
    import pandas as pd  # noqa: PLC0415 - seconds to load

    rows = pd.read_parquet(file).fillna({"run": 0})
    made = []
    for (question, _), run in rows.groupby(["question", "run"]):
        last = run[run.tenth == 100].iloc[0]
        inside = run[(run.tenth > 0) & (run.tenth < 100)].sort_values("tenth")
        values = inside[SIGNALS[signal]] * (-1 if signal == "entropy" else 1)
        readings = tuple(
            Reading(int(tokens), float(value), bool(choice != last.choice), bool(right))
            for tokens, value, choice, right in zip(
                inside.tokens, values, inside.choice, inside.correct, strict=True
            )
        )
        made.append(Trace(str(question), int(last.trace_tokens), readings, bool(last.correct)))
    return made


def grid(traces: Sequence[Trace]) -> list[float]:
    """Return thresholds at the signal's quantiles: the same effort for every signal."""
    values = sorted(each.signal for trace in traces for each in trace.readings)
    cuts = [values[len(values) * step // 40] for step in range(20, 40)]
    return sorted({*cuts, *values[-len(values) // 50 :: max(len(values) // 500, 1)]})


def figures(traces: Sequence[Trace], epsilon: float, delta: float) -> dict[str, Any]:
    """Return a signal's fixed and calibrated thresholds."""
    fixed = FIXED if all(each.signal >= 0 for each in traces[0].readings) else ()
    return {
        "questions": len({each.question for each in traces}),
        "runs": len(traces),
        "right in full": fmean(bool(each.right) for each in traces),
        "fixed": {str(each): at(traces, each) for each in fixed},
        "calibrated": {loss: calibrated(traces, loss, epsilon, delta) for loss in LOSSES},
    }


def at(traces: Sequence[Trace], threshold: float) -> dict[str, Any]:
    """Return the figures of one threshold; intervals are Wilson's, of independent runs."""
    exits = [replay(each, threshold) for each in traces]
    shares = {
        name: fmean(getattr(each, name) for each in exits) for name in ("lost", "gained", "changed")
    }
    return {
        "tokens left": sum(each.tokens for each in exits) / sum(each.tokens for each in traces),
        **{name: [share, *wilson(share, len(exits))] for name, share in shares.items()},
    }


def calibrated(traces: Sequence[Trace], loss: Loss, epsilon: float, delta: float) -> dict[str, Any]:
    """Return the figures of calibration on one half and of a naive pick, judged on the other."""
    outcomes = list(splits(traces, loss, epsilon, delta))
    return {
        name: {
            "found": fmean(each[name] is not None for each in outcomes),
            "broken": fmean(
                each[name] is not None and each[name][0] > epsilon for each in outcomes
            ),
            "tokens left": fmean(1.0 if each[name] is None else each[name][1] for each in outcomes),
        }
        for name in ("selected", "naive")
    }


def splits(
    traces: Sequence[Trace], loss: Loss, epsilon: float, delta: float
) -> Iterator[dict[str, Any]]:
    """Yield, for every split, the risk and the tokens left on the fresh half."""
    questions = sorted({each.question for each in traces})
    thresholds = grid(traces)
    for seed in range(SPLITS):
        drawn = set(random.Random(seed).sample(questions, len(questions) // 2))
        ours = [each for each in traces if each.question in drawn]
        fresh = [each for each in traces if each.question not in drawn]
        found = select_threshold(ours, thresholds, loss=loss, epsilon=epsilon, delta=delta)
        low = [float(each.threshold) for each in found.candidates if each.risk <= epsilon]
        picks = {
            "selected": float(found.chosen.threshold) if found.chosen else None,
            "naive": min(low, default=None),
        }
        yield {
            name: None if pick is None else judged(fresh, pick, loss)
            for name, pick in picks.items()
        }


def judged(traces: Sequence[Trace], threshold: float, loss: Loss) -> tuple[float, float]:
    """Return the risk and the share of tokens left at `threshold`."""
    return fmean(risk_by_question(traces, threshold, loss)), at(traces, threshold)["tokens left"]


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the tables as Markdown."""
    yield "| traces | signal | threshold | tokens left | lost | gained | changed |"
    yield "|---|---|---|---|---|---|---|"
    for name, signals in found.items():
        for signal, each in signals.items():
            for threshold, row in each["fixed"].items():
                shown = " | ".join(_percent(*row[key]) for key in ("lost", "gained", "changed"))
                left = _percent(row["tokens left"])
                yield f"| {name} | {signal} | {threshold} | {left} | {shown} |"
    yield ""
    yield "| traces | signal | risk | pick | found | broken on the other half | tokens left |"
    yield "|---|---|---|---|---|---|---|"
    for name, signals in found.items():
        for signal, each in signals.items():
            for loss, picks in each["calibrated"].items():
                for pick, row in picks.items():
                    shown = " | ".join(
                        _percent(row[key]) for key in ("found", "broken", "tokens left")
                    )
                    yield f"| {name} | {signal} | {loss} | {pick} | {shown} |"


def _percent(value: float, low: float | None = None, high: float | None = None) -> str:
    if low is None or high is None:
        return f"{value:.1%}"
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


if __name__ == "__main__":
    main()
