"""Estimates within strata never invent savings, and leave nothing out."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from service.savings.estimates import estimate_savings
from service.savings.state.contents import cell, group_of
from service.savings.state.series import EXIT, ArmName, Measure, holdout_series
from service.savings.state.store import Key, Sums
from stepgrpo_core.savings.estimators import (
    Measured,
    ServedTokens,
    compare,
    compare_strata,
    total_savings,
)
from stepgrpo_core.savings.holdout import GROUPS
from stepgrpo_core.savings.intervals import Estimate, combined
from tests.support.service.strata import in_stratum
from tests.support.service.sums import pairs, sums

MEASURES: tuple[Measure, ...] = ("completion", "engine")


class Period:
    """Conversations of a length in tokens, of which a share is held out; exits save `saved`."""

    def __init__(self, count: int, tokens: float, share: float, saved: float = 0.0) -> None:
        self.count, self.tokens, self.share, self.saved = count, tokens, share, saved

    def sums(self, rng: np.random.Generator, stratum: int) -> dict[Key, dict[str, float]]:
        held = rng.random(self.count) < self.share
        groups = rng.integers(0, GROUPS, self.count)
        tokens = rng.lognormal(np.log(self.tokens), 0.3, self.count) - self.saved * ~held
        found: dict[Key, dict[str, float]] = {}
        sides: tuple[tuple[ArmName, Any], ...] = (("held", held), ("exited", ~held))
        for side, chosen in sides:
            for group in range(GROUPS):
                of = tokens[chosen & (groups == group)]
                entry = ServedTokens(len(of), float(of.sum()))._asdict()
                for measure in MEASURES:
                    key = Key(
                        holdout_series(side, measure), "demo", "confidence", cell(stratum, group)
                    )
                    found[key] = entry
        return found


def pooled(sums: Mapping[Key, Sums]) -> dict[Key, Sums]:
    """As if settings had never changed."""
    found: dict[Key, Sums] = {}
    for key, named in sums.items():
        one = key._replace(group=group_of(key.group))
        here = found.get(one, {})
        found[one] = {name: here.get(name, 0) + value for name, value in named.items()}
    return found


def saved(sums: Mapping[Key, Sums]) -> Estimate:
    (row,) = estimate_savings(sums)
    assert row.savings is not None
    return row.savings.saved_per_request


def test_exits_that_save_nothing_save_nothing_after_another_share_and_shorter_conversations() -> (
    None
):
    rng = np.random.default_rng(1)
    long, short = Period(1000, 1000, share=0.5), Period(4000, 200, share=0.05)
    covered, invented, runs = 0, 0, 300
    for _ in range(runs):
        both = long.sums(rng, 1) | short.sums(rng, 2)
        interval = saved(both)
        covered += interval.low <= 0 <= interval.high
        invented += saved(pooled(both)).low > 0
    assert 0.92 <= covered / runs <= 0.98
    assert invented == runs  # what strata are for


def test_what_exits_save_is_weighted_by_who_exited() -> None:
    rng = np.random.default_rng(2)
    long, short = Period(1000, 1000, 0.5, saved=300), Period(4000, 200, 0.05, saved=20)
    truth = (0.5 * 1000 * 300 + 0.95 * 4000 * 20) / (0.5 * 1000 + 0.95 * 4000)
    covered, runs = 0, 300
    for _ in range(runs):
        interval = saved(long.sums(rng, 1) | short.sums(rng, 2))
        covered += interval.low <= truth <= interval.high
    assert 0.92 <= covered / runs <= 0.98


def test_strata_by_hand() -> None:
    """Equal groups, so there is no error: 40 saved by 12, and 10 saved by 36."""

    def sides(requests: int, exited: float, held: float) -> tuple[dict[int, ServedTokens], ...]:
        one = {g: ServedTokens(requests, requests * exited) for g in range(12)}
        return one, {g: ServedTokens(1, held) for g in range(12)}

    first, second = sides(1, 60, 100), sides(3, 20, 30)
    found = compare_strata(first, second)  # type: ignore[arg-type]
    assert found is not None
    assert found.saved.value == pytest.approx((12 * 40 + 36 * 10) / 48)
    assert found.ratio.value == pytest.approx((12 * 60 + 36 * 20) / (12 * 100 + 36 * 30))
    assert (found.treatment, found.control) == (48, 24)
    assert compare_strata(first) == compare(*first)  # type: ignore[arg-type]


def test_totals_of_strata_add_up_and_their_errors_by_squares() -> None:
    one = {g: Measured(2, 100, 60, 10, pairs=1, error=g % 3) for g in range(12)}
    other = {g: Measured(20, 1000, 90, 10, pairs=1, error=50 * (g % 2)) for g in range(12)}
    found, parts = total_savings(one, other), (total_savings(one), total_savings(other))
    assert found is not None
    assert parts[0] is not None
    assert parts[1] is not None
    assert found.value == parts[0].value + parts[1].value
    assert found.high - found.value == pytest.approx(
        math.hypot(*(each.high - each.value for each in parts if each))
    )
    assert total_savings(one, {}) == parts[0]


def test_weights_of_intervals() -> None:
    found = combined([(0.25, Estimate(8, 4, 20)), (0.75, Estimate(4, 0, 8))])
    assert found == Estimate(5, 5 - math.hypot(1, 3), 5 + math.hypot(3, 3))


def test_a_stratum_with_too_little_in_it_is_left_out_of_the_figures_and_counted() -> None:
    """Of pairs likewise: their savings and what they cost are of the same requests."""
    for make, figure in ((sums, 40.0), (pairs, 1120 / 48)):
        alone = estimate_savings(make(16))[0]
        (row,) = estimate_savings(make(16) | in_stratum(make(5), 7))
        assert row.savings is not None
        assert row.savings.saved_per_request.value == pytest.approx(figure)
        assert row.savings == alone.savings
        assert row.requests > alone.requests
        assert [part.included for part in row.strata] == [True, False]


def test_agreement_is_weighted_by_who_exited() -> None:
    judged: Sums = {"requests": 10, "agreed": 10}
    other: Sums = {"requests": 30, "agreed": 5, "differed": 5}
    found = {Key(EXIT, "demo", "confidence", 0): judged}
    found[Key(EXIT, "demo", "confidence", cell(3, 0))] = other
    (row,) = estimate_savings(found)
    assert row.agreement is not None
    assert row.agreement.value == pytest.approx(0.25 * 1 + 0.75 * 0.5)
    assert row.judged == 20
