"""Bias and coverage of `stepgrpo_core.savings.estimators` on simulated fleets of known truth.

The conversations of a fleet have 1 to 6 similar requests each, and lengths have a long tail. Bias
is the mean estimate minus the mean truth; coverage is how often the 95 % interval held the truth.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks.shared.reports import commit, keep
from stepgrpo_core.savings.estimators import Measured, ServedTokens, compare, total_savings
from stepgrpo_core.savings.holdout import GROUPS
from stepgrpo_core.savings.intervals import Estimate

__all__ = ["PREDICTORS", "Fleet", "holdout", "judged", "make_fleet", "total"]

Values = npt.NDArray[np.float64]
Predictor = Callable[[Values], Values]

PREDICTORS: dict[str, Predictor] = {
    "right on average": lambda prompt: 3 * prompt + 20,
    "half as much again, and 100 on top": lambda prompt: 1.5 * (3 * prompt + 20) + 100,
    "a constant": lambda prompt: np.full_like(prompt, 500.0),
}


@dataclass(frozen=True, slots=True)
class Fleet:
    """Requests of one fleet; arrays of one value each."""

    group: npt.NDArray[np.int64]
    prompt: Values
    """Covariate of the length that is known beforehand."""
    whole: Values
    """Completion tokens without the exit."""
    exited: Values
    """Completion tokens with it."""
    held: npt.NDArray[np.bool_]
    """True for requests assigned to the holdout."""

    def sums(self, values: Values, chosen: npt.NDArray[np.bool_]) -> Values:
        """Return sums by group over the chosen requests."""
        return np.bincount(self.group[chosen], values[chosen], GROUPS).astype(np.float64)


def make_fleet(rng: np.random.Generator, conversations: int, *, held: float = 0.2) -> Fleet:
    """Return a random fleet."""
    sizes = rng.integers(1, 7, conversations)
    talk = np.repeat(np.arange(conversations), sizes)
    count = len(talk)
    prompt = rng.gamma(2, 100, conversations)[talk] + rng.gamma(2, 10, count)
    alike = rng.gamma(4, 0.25, conversations)[talk]
    whole = np.round(3 * prompt * alike * rng.gamma(8, 0.125, count) + 20)
    return Fleet(
        group=rng.integers(0, GROUPS, conversations)[talk],
        prompt=prompt,
        whole=whole,
        exited=np.round(whole * rng.uniform(0.3, 1, count)),
        held=(rng.random(conversations) < held)[talk],
    )


def total(rng: np.random.Generator, fleet: Fleet, predictor: Predictor, share: float) -> Estimate:
    """Estimate the total tokens saved if a random `share` of requests was measured."""
    predicted = predictor(fleet.prompt)
    ones, everyone = np.ones_like(fleet.whole), np.ones_like(fleet.held)
    pair = rng.random(len(fleet.whole)) < share
    columns = (
        fleet.sums(ones, everyone),
        fleet.sums(predicted - fleet.exited, everyone),
        fleet.sums(ones, pair),
        fleet.sums(fleet.whole - predicted, pair),
    )
    found = total_savings(
        {
            group: Measured(requests=requests, saved=saved, pairs=pairs, error=error)
            for group, (requests, saved, pairs, error) in enumerate(zip(*columns, strict=True))
        }
    )
    assert found is not None
    return found


def holdout(fleet: Fleet, predictor: Predictor) -> tuple[Estimate, Estimate]:
    """Estimate the tokens saved per request, and the ratio of tokens, from the holdout."""
    predicted = predictor(fleet.prompt)
    sides = []
    for chosen, tokens in ((~fleet.held, fleet.exited), (fleet.held, fleet.whole)):
        terms = (np.ones_like(tokens), tokens, predicted, predicted**2, predicted * tokens)
        columns = [fleet.sums(each, chosen) for each in terms]
        sides.append(
            {
                group: ServedTokens(int(requests), *rest)
                for group, (requests, *rest) in enumerate(zip(*columns, strict=True))
            }
        )
    found = compare(*sides)
    assert found is not None
    return found.saved, found.ratio


def main() -> None:
    """Print bias, coverage and width, and keep them in outputs/bench/fleets.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fleets", type=int, default=1000, help="simulated fleets of each kind")
    args = parser.parse_args()
    rows = [_row(name, predictor, args.fleets) for name, predictor in PREDICTORS.items()]
    print(f"\n{args.fleets} fleets each; commit {commit()}")
    for row in rows:
        print(f"\npredictor: {row['predictor']}")
        for name in ("total", "saved", "ratio"):
            each = row[name]
            print(
                f"  {name:6} bias {100 * each['bias']:+.2f} %, coverage "
                f"{100 * each['coverage']:.1f} %, half width {100 * each['half_width']:.1f} %"
            )
    keep("fleets", rows)


def _row(name: str, predictor: Predictor, fleets: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    large = make_fleet(rng, 1_000_000)
    per_request = float((large.whole - large.exited).mean())
    ratio = float(large.exited.mean() / large.whole.mean())
    found: dict[str, list[tuple[Estimate, float]]] = {"total": [], "saved": [], "ratio": []}
    for _ in tqdm(range(fleets), desc=name, unit="fleet"):
        fleet = make_fleet(rng, 1200)
        truth = float((fleet.whole - fleet.exited).sum())
        found["total"].append((total(rng, fleet, predictor, 0.1), truth))
        for key, estimate, true in zip(
            ("saved", "ratio"), holdout(fleet, predictor), (per_request, ratio), strict=True
        ):
            found[key].append((estimate, true))
    return {"predictor": name} | {key: judged(pairs) for key, pairs in found.items()}


def judged(pairs: list[tuple[Estimate, float]]) -> dict[str, float]:
    """Return bias and half width relative to the mean truth, and coverage."""
    truth = float(np.mean([true for _, true in pairs]))
    return {
        "bias": float(np.mean([each.value for each, _ in pairs])) / truth - 1,
        "coverage": float(np.mean([each.low <= true <= each.high for each, true in pairs])),
        "half_width": float(np.mean([each.high - each.value for each, _ in pairs])) / truth,
    }


if __name__ == "__main__":
    main()
