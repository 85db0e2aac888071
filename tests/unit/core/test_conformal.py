"""Split-conformal intervals: they hold what they promise, and say when they no longer do."""

import random

import pytest

from stepgrpo_core.savings.baseline import LEVEL, Prediction
from stepgrpo_core.savings.conformal import (
    BAND,
    MIN_PAIRS,
    coverage,
    score,
    widened,
    widening,
)

PLAIN = Prediction(tokens=100, low=90, high=110)


def test_scores_are_distances_to_the_interval() -> None:
    assert [score(PLAIN, outcome) for outcome in (85, 90, 95, 100, 110, 140)] == [
        5, 0, -5, -10, 0, 30,
    ]  # fmt: skip


def test_the_quantile_of_the_scores_widens() -> None:
    scores = [float(each) for each in range(1, 101)]
    assert widening(scores) == 91  # the 91st of 100, for the next is the 101st
    assert widening(scores[: MIN_PAIRS - 1]) == 0
    assert widening([-3.0] * MIN_PAIRS) == -3


def test_the_prediction_stays_inside_its_interval() -> None:
    assert widened(PLAIN, 5) == Prediction(100, 85, 115)
    assert widened(PLAIN, -4) == Prediction(100, 94, 106)
    assert widened(PLAIN, -40) == Prediction(100, 100, 100)


@pytest.mark.parametrize("shift", [0.0, 40.0])
@pytest.mark.parametrize("spread", [4.0, 30.0])
def test_intervals_hold_with_the_level_however_wrong_the_predictor(
    shift: float, spread: float
) -> None:
    chance = random.Random(f"{shift} {spread}")
    held = 0
    for _ in range(400):
        outcomes = [chance.gauss(100 + shift, spread) for _ in range(61)]
        by = widening([score(PLAIN, each) for each in outcomes[:-1]])
        shown = widened(PLAIN, by)
        held += shown.low <= outcomes[-1] <= shown.high
    assert held / 400 == pytest.approx(LEVEL, abs=0.045)  # three standard errors


def test_coverage_is_stale_only_when_it_is_surely_out_of_its_band() -> None:
    assert coverage([1.0] * (MIN_PAIRS - 1)) is None
    for share, stale in ((0.90, False), (0.86, False), (0.70, True), (1.0, True)):
        found = coverage([1.0] * round(400 * share) + [0.0] * round(400 * (1 - share)))
        assert found is not None
        assert found.low <= found.value <= found.high
        assert found.value == pytest.approx(share)
        assert found.stale is stale
    assert 0 < BAND < 1 - LEVEL
    few = coverage([1.0] * 20)
    assert few is not None
    assert not few.stale
