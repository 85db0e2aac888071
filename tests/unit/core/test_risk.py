"""Risk control: exact tests, fixed-sequence selection, replay of traces, and drift."""

import math
import random
import statistics
from collections.abc import Sequence

import pytest

from stepgrpo_core.errors import InvalidCalibration, InvalidSetting
from stepgrpo_core.risk import (
    Exit,
    Reading,
    RiskWatch,
    Run,
    Trace,
    p_value,
    questions_needed,
    replay,
    risk_by_question,
    select,
    select_threshold,
    upper_bound,
)
from stepgrpo_core.risk.testing import binomial_tail

GRID = [round(0.05 * step, 2) for step in range(2, 20)]


def trace(question: str, *readings: tuple[int, float, bool], tokens: int = 100) -> Trace:
    """A trace whose full run is right; a changed answer is wrong."""
    made = tuple(Reading(at, signal, changed, not changed) for at, signal, changed in readings)
    return Trace(question, tokens, made, right=True)


def sampled(count: int, rng: random.Random) -> list[Trace]:
    """Questions with one boundary of a uniform signal s, whose answer changes with (1 - s)**2."""
    signals = [rng.random() for _ in range(count)]
    return [
        trace(f"q{number}", (10, signal, rng.random() < (1 - signal) ** 2))
        for number, signal in enumerate(signals)
    ]


def true_risk(threshold: float) -> float:
    """The integral of (1 - s)**2 from the threshold to 1."""
    return (1 - threshold) ** 3 / 3


def test_a_replay_exits_at_the_first_boundary_that_is_sure_enough() -> None:
    made = trace("a", (10, 0.5, True), (20, 0.9, False), (30, 0.99, True))
    assert [replay(made, each).tokens for each in (0.4, 0.5, 0.9, 0.99)] == [10, 20, 30, 100]
    assert replay(made, 0.4).lost
    assert not replay(made, 0.6).lost
    wrong = Trace("b", 50, (Reading(5, 0.8, changed=True, right=True),), right=False)
    assert (replay(wrong, 0.5).gained, replay(wrong, 0.5).lost) == (True, False)


@pytest.mark.parametrize("ends", [(20, 10), (10, 101), (-1, 10)])
def test_readings_out_of_order_are_refused(ends: tuple[int, int]) -> None:
    with pytest.raises(InvalidCalibration, match="in their order"):
        trace("a", *((at, 0.5, False) for at in ends))


def test_the_binomial_tail_is_exact() -> None:
    total, rate = 12, 0.3
    by_hand = [math.comb(total, k) * rate**k * (1 - rate) ** (total - k) for k in range(total)]
    for failures in range(total):
        assert binomial_tail(failures, total, rate) == pytest.approx(sum(by_hand[: failures + 1]))
    assert binomial_tail(3, 10, 0) == binomial_tail(10, 10, 0.5) == 1
    assert binomial_tail(3, 10, 1) == 0


def test_questions_without_a_failure_prove_what_the_docs_say() -> None:
    assert (questions_needed(0.05, 0.1), questions_needed(0.02, 0.1)) == (45, 114)
    assert p_value([0.0] * 45, 0.05) <= 0.1 < p_value([0.0] * 44, 0.05)
    assert p_value([1.0] + [0.0] * 44, 0.05) > 0.1
    assert p_value([], 0.05) == 1


def test_means_of_several_runs_use_a_bound_that_holds_for_them() -> None:
    losses = [0.1] * 20 + [0.0] * 180
    assert p_value(losses, 0.05) == pytest.approx(
        min(
            math.exp(-200 * (0.99 * math.log(0.99 / 0.95) + 0.01 * math.log(0.01 / 0.05))),
            math.e * binomial_tail(2, 200, 0.05),
        )
    )
    assert p_value([0.5] * 200, 0.05) == 1
    assert p_value([1.0, 0.5, 1.0], 0.999) > 0


def test_the_upper_bound_is_clopper_pearsons() -> None:
    bound = upper_bound([1.0] + [0.0] * 99, 0.1)
    assert binomial_tail(1, 100, bound) == pytest.approx(0.1, abs=1e-4)
    assert upper_bound([0.0] * 45, 0.1) == pytest.approx(0.05, abs=2e-3)


def test_a_cluster_of_runs_counts_once() -> None:
    runs = [trace("a", (10, 0.9, True)), trace("a", (10, 0.9, False)), trace("b", (10, 0.1, True))]
    assert risk_by_question(runs, 0.5, "changed") == [0.5, 0.0]
    found = select_threshold(runs, [0.5], epsilon=0.4)
    assert found.questions == 2
    assert found.candidates[0].tokens_left == pytest.approx(120 / 300)


def test_the_sequence_of_tests_ends_at_the_first_failure() -> None:
    """A cheaper threshold that looks safe by luck stays invalid behind one that failed."""
    made = [trace(f"q{n}", (10, 0.3, False), (20, 0.6, n % 5 == 0)) for n in range(300)]
    found = select_threshold(made, [0.9, 0.5, 0.2], epsilon=0.05)
    assert [each.valid for each in found.candidates] == [True, False, False]
    assert [each.p_value < 0.1 for each in found.candidates] == [True, False, True]
    assert found.chosen is not None
    assert (found.chosen.threshold, found.chosen.tokens_left) == (0.9, 1.0)


def test_what_probes_cost_counts_and_the_cheapest_of_the_valid_is_chosen() -> None:
    exits = (Exit(60, probe_tokens=5), Exit(50, probe_tokens=30), Exit(40, changed=True))
    found = select([Run(f"q{n}", 100, exits) for n in range(60)], ["a", "b", "c"], epsilon=0.05)
    assert [(each.tokens_left, each.cost) for each in found.candidates] == [
        (0.6, 0.65),
        (0.5, 0.8),
        (0.4, 0.4),
    ]
    assert [each.valid for each in found.candidates] == [True, True, False]
    assert found.chosen is not None
    assert found.chosen.threshold == "a"


def test_when_nothing_is_valid_it_says_which_bound_would_be() -> None:
    made = [trace(f"q{n}", (10, 0.9, n % 10 == 0)) for n in range(100)]
    found = select_threshold(made, [0.5], epsilon=0.02)
    assert found.chosen is None
    assert select_threshold(made, [0.5], epsilon=found.least_epsilon).chosen is not None
    assert select_threshold(made, [0.5], epsilon=found.least_epsilon - 0.001).chosen is None


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 0.1), (1, 0.1), (0.1, 0), (0.1, 1)])
def test_bounds_outside_their_range_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(InvalidSetting, match="between 0 and 1"):
        select_threshold([trace("a")], GRID, epsilon=epsilon, delta=delta)
    with pytest.raises(InvalidSetting, match="between 0 and 1"):
        questions_needed(epsilon, delta)
    with pytest.raises(InvalidSetting, match="between 0 and 1"):
        RiskWatch(epsilon, delta)


def test_a_risk_of_lost_answers_needs_gold_answers() -> None:
    without = [Trace("a", 100, (Reading(10, 0.9, changed=False),))]
    with pytest.raises(InvalidCalibration, match="question a has no gold answer"):
        select_threshold(without, [0.5], loss="lost")
    assert select_threshold(without, [0.5]).questions == 1
    gold = [trace("a", (10, 0.9, True))]
    assert select_threshold(gold, [0.5], loss="lost").candidates[0].risk == 1
    with pytest.raises(InvalidSetting, match="at least one"):
        select_threshold(without, [])


def naive(traces: Sequence[Trace], epsilon: float) -> float | None:
    """The cheapest threshold whose observed risk is at most `epsilon`."""
    risks = {each: sum(risk_by_question(traces, each, "changed")) for each in GRID}
    return min((each for each, risk in risks.items() if risk <= epsilon * 100), default=None)


def test_a_selected_threshold_holds_on_fresh_questions_and_a_naive_one_does_not() -> None:
    epsilon, delta, draws = 0.1, 0.1, 200
    broken = {"selected": 0, "naive": 0}
    for draw in range(draws):
        made = sampled(100, random.Random(draw))
        found = select_threshold(made, GRID, epsilon=epsilon, delta=delta).chosen
        broken["selected"] += found is not None and true_risk(float(found.threshold)) > epsilon
        picked = naive(made, epsilon)
        broken["naive"] += picked is not None and true_risk(picked) > epsilon
    assert broken["selected"] <= delta * draws
    assert broken["naive"] >= 3 * delta * draws


def test_a_watch_alarms_on_a_broken_guarantee_and_seldom_on_one_that_holds() -> None:
    def alarms(risk: float, looks: int = 300) -> float:
        found = 0
        for seed in range(100):
            rng, watch = random.Random(seed), RiskWatch(0.02)
            watch.add(float(rng.random() < risk) for _ in range(looks))
            found += watch.broken
        return found / 100

    assert alarms(0.02) <= 0.05
    assert alarms(0.1) >= 0.95


def test_an_alarm_stays() -> None:
    watch = RiskWatch(0.1)
    assert (watch.wealth, watch.broken) == (1, False)
    watch.add([1.0] * 5)
    assert watch.broken
    watch.add([0.0] * 10_000)
    assert watch.wealth < 1
    assert watch.broken


def test_losses_may_be_counted_in_place_of_listed() -> None:
    listed, counted = RiskWatch(0.1), RiskWatch(0.1)
    listed.add([0.0, 1.0, 0.0, 0.0, 1.0])
    counted.count(3, 2)
    assert counted.wealth == pytest.approx(listed.wealth)
    counted.count(0, 10)
    assert counted.broken


@pytest.mark.parametrize(("risk", "median"), [(0.1, 145.5), (0.25, 13)])
def test_a_broken_guarantee_is_found_as_soon_as_the_docs_say(risk: float, median: float) -> None:
    found = []
    for seed in range(200):
        rng, watch, looks = random.Random(seed), RiskWatch(0.05), 0
        while not watch.broken:
            watch.count(*((0, 1) if rng.random() < risk else (1, 0)))
            looks += 1
        found.append(looks)
    assert statistics.median(found) == median
