"""Savings of a fleet: by hand, and in simulated fleets whose truth is known."""

import math

import numpy as np
import pytest

from benchmarks.savings.simulated_fleets import PREDICTORS, holdout, judged, make_fleet, total
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.savings.estimators import (
    MIN_GROUPS,
    Measured,
    ServedTokens,
    compare,
    total_savings,
)
from stepgrpo_core.savings.holdout import GROUPS, Holdout
from stepgrpo_core.savings.intervals import Estimate, student_t

FLEETS = 1000
COVERED = (0.93, 0.97)
WRONG = PREDICTORS["half as much again, and 100 on top"]
KEY = b"a secret of many bytes"


def test_the_total_is_right_whatever_the_predictor_says() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(FLEETS):
        fleet = make_fleet(rng, 600)
        truth = float((fleet.whole - fleet.exited).sum())
        found.append((total(rng, fleet, WRONG, 0.1), truth))
    check(found)


def test_a_holdout_finds_the_savings_and_predictions_make_it_precise() -> None:
    rng = np.random.default_rng(2)
    large = make_fleet(rng, 1_000_000)
    saved = float((large.whole - large.exited).mean())
    ratio = float(large.exited.mean() / large.whole.mean())
    adjusted, ratios, plain = [], [], []
    for _ in range(FLEETS):
        fleet = make_fleet(rng, 1200)
        with_predictions = holdout(fleet, WRONG)
        adjusted.append((with_predictions[0], saved))
        ratios.append((with_predictions[1], ratio))
        plain.append((holdout(fleet, np.zeros_like)[0], saved))
    for found in (adjusted, ratios, plain):
        check(found)
    assert judged(adjusted)["half_width"] < 0.85 * judged(plain)["half_width"]


def check(found: list[tuple[Estimate, float]]) -> None:
    figures = judged(found)
    assert abs(figures["bias"]) < 0.01
    assert COVERED[0] <= figures["coverage"] <= COVERED[1]


# By hand.


def test_a_comparison_by_hand() -> None:
    """Equal groups but one: the jackknife's error is that of a mean of group means."""
    exited = {g: ServedTokens.one(tokens=50, predicted=0) for g in range(12)}
    held = {g: ServedTokens.one(tokens=100 + (12 if g == 0 else 0), predicted=0) for g in range(12)}
    found = compare(exited, held)
    assert found is not None
    error = math.sqrt(np.var([112] + [100] * 11, ddof=1) / 12)
    assert found.saved.value == pytest.approx(51)
    assert found.saved.high - found.saved.value == pytest.approx(student_t(11) * error)
    assert found.ratio.value == pytest.approx(50 / 101)
    assert (found.treatment, found.control) == (12, 12)


def test_predictions_correct_for_an_unlucky_deal() -> None:
    """Tokens are twice the prediction, half of it with exits; the held prompts were longer."""
    exited = {g: ServedTokens.one(tokens=10 + g, predicted=10 + g) for g in range(20)}
    held = {g: ServedTokens.one(tokens=2 * (30 + g), predicted=30 + g) for g in range(20)}
    found = compare(exited, held)
    assert found is not None
    mean = (19.5 + 39.5) / 2
    assert found.saved.value == pytest.approx(mean)
    assert found.ratio.value == pytest.approx(0.5)


def test_no_holdout_tokens_have_no_ratio() -> None:
    nothing = {g: ServedTokens.one(tokens=0, predicted=0) for g in range(12)}
    found = compare(nothing, nothing)
    assert found is not None
    assert found.saved == Estimate(0, 0, 0)
    assert math.isnan(found.ratio.value)


@pytest.mark.parametrize("groups", [0, MIN_GROUPS - 1])
def test_too_few_groups_give_no_figure(groups: int) -> None:
    few = {g: ServedTokens.one(100, 0) for g in range(groups)}
    many = {g: ServedTokens.one(100, 0) for g in range(30)}
    assert compare(few, many) is None
    assert compare(many, few) is None
    pairs = {g: Measured(requests=2, saved=10, pairs=int(g < groups), error=1) for g in range(30)}
    assert total_savings(pairs) is None


def test_a_total_by_hand() -> None:
    """Every second request was measured, all predictions were 5 too low: nothing is unknown."""
    groups = {g: Measured(requests=2, saved=20, pairs=1, error=5) for g in range(16)}
    assert total_savings(groups) == Estimate(16 * 20 + 32 * 5, 480, 480)
    # All measured: no predictor is needed, and there is no error left.
    uneven = {g: Measured(requests=2, saved=20, pairs=2, error=g) for g in range(16)}
    assert total_savings(uneven) == Estimate(16 * 20 + 120, 440, 440)


# Who is held out.


def test_conversations_land_where_they_did_and_as_often_as_asked() -> None:
    holdout = Holdout(0.1, KEY)
    places = [holdout.assign(str(i).encode()) for i in range(20_000)]
    assert places == [holdout.assign(str(i).encode()) for i in range(20_000)]
    assert np.mean([place.control for place in places]) == pytest.approx(0.1, abs=0.01)
    filled = np.bincount([place.group for place in places], minlength=GROUPS)
    assert filled.min() > 200
    held = np.bincount([place.group for place in places if place.control], minlength=GROUPS)
    assert held.min() > 10  # sides are independent of groups


def test_another_key_deals_anew() -> None:
    first, second = Holdout(0.5, KEY), Holdout(0.5, KEY[::-1])
    same = [
        first.assign(bytes([i])).control == second.assign(bytes([i])).control for i in range(256)
    ]
    assert 90 < sum(same) < 166


def test_none_and_all() -> None:
    assert not any(Holdout(0, KEY).assign(bytes([i])).control for i in range(256))
    assert all(Holdout(1, KEY).assign(bytes([i])).control for i in range(256))


@pytest.mark.parametrize(
    ("share", "key", "named"),
    [(-0.1, KEY, "holdout"), (1.5, KEY, "1.5"), (0.1, b"short", "5 bytes")],
)
def test_a_holdout_that_cannot_work_is_refused(share: float, key: bytes, named: str) -> None:
    with pytest.raises(InvalidSetting, match=named):
        Holdout(share, key)
