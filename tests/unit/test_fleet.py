"""Savings of a fleet: by hand, and in simulated fleets whose truth is known."""

import math

import numpy as np
import pytest

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.fleet import MIN_GROUPS, Measured, Served, compare, total_savings
from stepgrpo_core.holdout import GROUPS, Holdout
from stepgrpo_core.intervals import Estimate, student_t

FLEETS = 1000
COVERED = (0.93, 0.97)
KEY = b"a secret of many bytes"


class Fleet:
    """Conversations of 1 to 6 requests, alike within; some hard prompts are much longer."""

    def __init__(self, rng: np.random.Generator, conversations: int) -> None:
        sizes = rng.integers(1, 7, conversations)
        talk = np.repeat(np.arange(conversations), sizes)
        prompt = rng.gamma(2, 100, conversations)[talk] + rng.gamma(2, 10, len(talk))
        alike = rng.gamma(4, 0.25, conversations)[talk]
        self.whole = np.round(3 * prompt * alike * rng.gamma(8, 0.125, len(talk)) + 20)
        self.exited = np.round(self.whole * rng.uniform(0.3, 1, len(talk)))
        self.group = rng.integers(0, GROUPS, conversations)[talk]
        self.held = (rng.random(conversations) < 0.2)[talk]
        # Deliberately wrong: half as much again, and 100 on top.
        self.predicted = 1.5 * 3 * prompt + 100

    def sums(self, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        return np.bincount(self.group[chosen], values[chosen], GROUPS)


def coverage(found: list[Estimate], truths: list[float]) -> float:
    return float(
        np.mean([e.low <= truth <= e.high for e, truth in zip(found, truths, strict=True)])
    )


def bias(found: list[Estimate], truths: list[float]) -> float:
    return float(np.mean([each.value for each in found]) / np.mean(truths) - 1)


def test_the_total_is_right_whatever_the_predictor_says() -> None:
    rng = np.random.default_rng(1)
    found, truths = [], []
    for _ in range(FLEETS):
        fleet = Fleet(rng, 600)
        pair = rng.random(len(fleet.whole)) < 0.1
        everyone = np.ones_like(pair)
        columns = (
            fleet.sums(np.ones(len(pair)), everyone),
            fleet.sums(fleet.predicted - fleet.exited, everyone),
            fleet.sums(np.ones(len(pair)), pair),
            fleet.sums(fleet.whole - fleet.predicted, pair),
        )
        groups = {
            g: Measured(int(n), s, int(p), e)
            for g, (n, s, p, e) in enumerate(zip(*columns, strict=True))
        }
        total = total_savings(groups)
        assert total is not None
        found.append(total)
        truths.append(float((fleet.whole - fleet.exited).sum()))
    assert abs(bias(found, truths)) < 0.01
    assert COVERED[0] <= coverage(found, truths) <= COVERED[1]


def sides(fleet: Fleet, predicted: np.ndarray) -> list[dict[int, Served]]:
    made = []
    for chosen, tokens in ((~fleet.held, fleet.exited), (fleet.held, fleet.whole)):
        columns = (
            fleet.sums(np.ones(len(tokens)), chosen),
            fleet.sums(tokens, chosen),
            fleet.sums(predicted, chosen),
            fleet.sums(predicted**2, chosen),
            fleet.sums(predicted * tokens, chosen),
        )
        made.append(
            {g: Served(int(n), *rest) for g, (n, *rest) in enumerate(zip(*columns, strict=True))}
        )
    return made


def test_a_holdout_finds_the_savings_and_predictions_make_it_precise() -> None:
    rng = np.random.default_rng(2)
    with_predictions, ratios, without = [], [], []
    truth = Fleet(rng, 2_000_000)
    saved = float((truth.whole - truth.exited).mean())
    ratio = float(truth.exited.mean() / truth.whole.mean())
    for _ in range(FLEETS):
        fleet = Fleet(rng, 1200)
        found = compare(*sides(fleet, fleet.predicted))
        plain = compare(*sides(fleet, np.zeros_like(fleet.predicted)))
        assert found is not None
        assert plain is not None
        with_predictions.append(found.saved)
        ratios.append(found.ratio)
        without.append(plain.saved)
    for estimates, true in ((with_predictions, saved), (ratios, ratio), (without, saved)):
        assert abs(bias(estimates, [true])) < 0.01
        assert COVERED[0] <= coverage(estimates, [true] * FLEETS) <= COVERED[1]
    spread = [np.std([each.value for each in e]) for e in (with_predictions, without)]
    assert spread[0] < 0.85 * spread[1]


# By hand.


def test_a_comparison_by_hand() -> None:
    """Equal groups but one: the jackknife's error is that of a mean of group means."""
    exited = {g: Served.one(tokens=50, predicted=0) for g in range(12)}
    held = {g: Served.one(tokens=100 + (12 if g == 0 else 0), predicted=0) for g in range(12)}
    found = compare(exited, held)
    assert found is not None
    error = math.sqrt(np.var([112] + [100] * 11, ddof=1) / 12)
    assert found.saved.value == pytest.approx(51)
    assert found.saved.high - found.saved.value == pytest.approx(student_t(11) * error)
    assert found.ratio.value == pytest.approx(50 / 101)
    assert (found.exited, found.held) == (12, 12)


def test_predictions_correct_for_an_unlucky_deal() -> None:
    """Tokens are twice the prediction, half of it with exits; the held prompts were longer."""
    exited = {g: Served.one(tokens=10 + g, predicted=10 + g) for g in range(20)}
    held = {g: Served.one(tokens=2 * (30 + g), predicted=30 + g) for g in range(20)}
    found = compare(exited, held)
    assert found is not None
    mean = (19.5 + 39.5) / 2
    assert found.saved.value == pytest.approx(mean)
    assert found.ratio.value == pytest.approx(0.5)


def test_no_holdout_tokens_have_no_ratio() -> None:
    nothing = {g: Served.one(tokens=0, predicted=0) for g in range(12)}
    found = compare(nothing, nothing)
    assert found is not None
    assert found.saved == Estimate(0, 0, 0)
    assert math.isnan(found.ratio.value)


@pytest.mark.parametrize("groups", [0, MIN_GROUPS - 1])
def test_too_few_groups_give_no_figure(groups: int) -> None:
    few = {g: Served.one(100, 0) for g in range(groups)}
    many = {g: Served.one(100, 0) for g in range(30)}
    assert compare(few, many) is None
    assert compare(many, few) is None
    pairs = {g: Measured(2, 10, int(g < groups), 1) for g in range(30)}
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
    places = [holdout.place(str(i).encode()) for i in range(20_000)]
    assert places == [holdout.place(str(i).encode()) for i in range(20_000)]
    assert np.mean([place.held for place in places]) == pytest.approx(0.1, abs=0.01)
    filled = np.bincount([place.group for place in places], minlength=GROUPS)
    assert filled.min() > 200
    held = np.bincount([place.group for place in places if place.held], minlength=GROUPS)
    assert held.min() > 10  # sides are independent of groups


def test_another_key_deals_anew() -> None:
    first, second = Holdout(0.5, KEY), Holdout(0.5, KEY[::-1])
    same = [first.place(bytes([i])).held == second.place(bytes([i])).held for i in range(256)]
    assert 90 < sum(same) < 166


def test_none_and_all() -> None:
    assert not any(Holdout(0, KEY).place(bytes([i])).held for i in range(256))
    assert all(Holdout(1, KEY).place(bytes([i])).held for i in range(256))


@pytest.mark.parametrize(
    ("share", "key", "named"),
    [(-0.1, KEY, "holdout_share"), (1.5, KEY, "1.5"), (0.1, b"short", "5 bytes")],
)
def test_a_holdout_that_cannot_work_is_refused(share: float, key: bytes, named: str) -> None:
    with pytest.raises(InvalidSetting, match=named):
        Holdout(share, key)
