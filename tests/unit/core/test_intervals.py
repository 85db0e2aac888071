"""Intervals by hand, and how often they hold the truth in simulated evaluations."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from stepgrpo_core.savings.intervals import Estimate, wilson
from training.evaluation.intervals import (
    FEW,
    accuracy_interval,
    bootstrap,
    difference_interval,
    mean_interval,
    mean_of,
    percentiles,
    resamples_of,
)

COVERED = (0.93, 0.97)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def as_scores(hits: np.ndarray) -> list[list[bool]]:
    found: list[list[bool]] = hits.tolist()
    return found


# By hand.


def test_wilsons_interval_is_that_of_the_textbook() -> None:
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_one_sample_per_question_gives_wilsons_own_interval_with_students_t() -> None:
    found = accuracy_interval([[True]] * 150 + [[False]] * 50)
    assert found is not None
    t_199 = 1.97196
    # n - 1 independent questions would have the variance that n show; never fewer than n count
    assert (found.low, found.high) == pytest.approx(wilson(0.75, 200, t_199), abs=1e-5)


def test_equal_samples_of_a_question_count_once_and_independent_ones_each() -> None:
    clustered = accuracy_interval([[True] * 8] * 20 + [[False] * 8] * 20)
    single = accuracy_interval([[True]] * 20 + [[False]] * 20)
    independent = accuracy_interval([[True, False] * 4] * 40)
    assert clustered == single
    assert independent is not None
    t_39 = 2.02269
    assert (independent.low, independent.high) == pytest.approx(wilson(0.5, 320, t_39), abs=1e-4)


@pytest.mark.parametrize("score", [True, False])
def test_questions_that_are_all_right_or_all_wrong_leave_room_for_others(score: bool) -> None:
    found = accuracy_interval([[score] * 16] * 30)
    assert found is not None
    assert found.value == float(score)
    assert found.high - found.low == pytest.approx(0.122, abs=0.001)  # t² / (30 + t²)


def test_unequal_numbers_of_samples_do_not_weigh_questions() -> None:
    found = accuracy_interval([[True], [False, False, False]])
    assert found is not None
    assert found.value == 0.5
    assert accuracy_interval([]) is None


def test_resamples_draw_as_many_questions_as_there_are_and_all_alike() -> None:
    weights = resamples_of(25, 4000, seed=3)
    assert weights.shape == (4000, 25)
    assert np.all(weights.sum(axis=1) == 25)
    assert weights.mean(axis=0) == pytest.approx(np.ones(25), abs=0.08)


def test_the_bootstrap_has_the_spread_of_the_mean_with_students_t() -> None:
    values = rng(0).normal(100, 20, 30)
    found = bootstrap(values, resamples_of(30, 10_000, seed=0))
    skewless = mean_interval(values, resamples_of(30, 10_000, seed=0))
    half = 2.0452 * values.std(ddof=1) / math.sqrt(30)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.04)
    assert skewless.high - skewless.low == pytest.approx(2 * half, rel=0.06)


def test_percentiles_lie_where_students_t_says() -> None:
    replicates = np.linspace(0, 1, 100_001)
    found = percentiles(0.5, replicates, 10)
    tail = NormalDist().cdf(-2.2622 * math.sqrt(10 / 9))  # t of 9 degrees of freedom
    assert (found.low, found.high) == pytest.approx((tail, 1 - tail), abs=1e-4)


def test_one_question_has_no_interval() -> None:
    found = bootstrap(np.array([5.0]), resamples_of(1, 100, seed=0))
    assert found.value == 5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_equal_lengths_have_no_spread_and_few_questions_still_an_interval() -> None:
    equal = mean_interval(np.full(30, 0.1 + 0.2), resamples_of(30, 500, seed=0))
    assert (equal.low, equal.high) == (equal.value, equal.value)
    two = mean_interval(np.array([10.0, 20.0]), resamples_of(2, 500, seed=0))
    assert (two.value, two.low, two.high) == (15, 10, 20)


def test_the_interval_of_a_skewed_mean_reaches_further_up_than_down() -> None:
    values = rng(2).lognormal(6, 0.7, 40)
    found = mean_interval(values, resamples_of(40, 4000, seed=0))
    assert found.high - found.value > 1.2 * (found.value - found.low)


def test_a_ratio_resamples_both_of_its_means_together() -> None:
    below = rng(1).uniform(50, 500, 40)
    found = bootstrap(0.6 * below, resamples_of(40, 2000, seed=0), below)
    assert (found.value, found.low, found.high) == pytest.approx((0.6, 0.6, 0.6))


def test_few_questions_that_differ_get_agresti_and_mins_interval() -> None:
    # McNemar's table with 100 questions: 4 better, 1 worse
    differences = [[1]] * 4 + [[-1]] + [[0]] * 95
    found = difference_interval(differences, resamples_of(100, 2000, seed=0))
    assert found is not None
    mean = 3 / 102
    half = 1.95996 * math.sqrt((4.5 + 1.5 - 3**2 / 102) / 102**2)
    assert found.value == 0.03
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half), abs=1e-5)


def test_no_difference_at_all_is_no_proof_that_there_is_none() -> None:
    found = difference_interval([[0]] * 100, resamples_of(100, 2000, seed=0))
    assert found is not None
    assert found.low == -found.high
    assert found.high == pytest.approx(1.95996 / 102, abs=1e-5)
    assert difference_interval([[], []], resamples_of(2, 100, seed=0)) is None


def test_questions_that_no_one_could_grade_are_left_out_of_the_difference() -> None:
    graded = [[1, 0], [0, -1]] * FEW
    weights = resamples_of(2 * FEW + 100, 2000, seed=0)
    found = difference_interval([*graded, *[[] for _ in range(100)]], weights)
    assert found is not None
    assert found.value == 0
    assert 0.15 < found.high < 0.35  # of 20 questions; 120 would give a third of it


def test_the_mean_over_tasks_adds_distances_in_squares() -> None:
    parts = [Estimate(0.5, 0.4, 0.6), Estimate(0.9, 0.5, 0.95)]
    found = mean_of(parts)
    assert found.value == 0.7
    assert found.low == pytest.approx(0.7 - math.hypot(0.1, 0.4) / 2)
    assert found.high == pytest.approx(0.7 + math.hypot(0.1, 0.05) / 2)


# By simulation: every question has its own difficulty and its own length.


@pytest.mark.parametrize(
    ("questions", "samples", "a", "b"),
    [(30, 16, 0.6, 0.4), (40, 16, 0.8, 0.2), (200, 4, 8, 0.2), (198, 8, 1, 1), (200, 1, 2, 1)],
)
def test_95_percent_of_accuracy_intervals_hold_the_truth(
    questions: int, samples: int, a: float, b: float
) -> None:
    draw = rng(11)
    held = []
    for _ in range(2000):
        chance = draw.beta(a, b, questions)
        found = accuracy_interval(as_scores(draw.random((questions, samples)) < chance[:, None]))
        assert found is not None
        held.append(found.low <= a / (a + b) <= found.high)
    assert COVERED[0] <= np.mean(held) <= COVERED[1]


def test_near_full_marks_a_bootstrap_would_fail_where_the_interval_holds() -> None:
    draw = rng(12)
    weights = resamples_of(40, 2000, seed=0)
    held, bootstrapped = [], []
    for _ in range(1000):
        hits = draw.random((40, 1)) < 0.98
        found = accuracy_interval(as_scores(hits))
        assert found is not None
        plain = bootstrap(hits[:, 0].astype(float), weights)
        held.append(found.low <= 0.98 <= found.high)
        bootstrapped.append(plain.low <= 0.98 <= plain.high)
    assert np.mean(held) >= COVERED[0]
    assert np.mean(bootstrapped) < 0.7


def paired_hits(
    draw: np.random.Generator, questions: int, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two models on the same questions; the second is better on some and worse on others."""
    difficulty = draw.normal(1.0, 2.0, questions)
    change = draw.normal(0.4, 0.7, questions)

    def hits(logits: np.ndarray) -> np.ndarray:
        found: np.ndarray = draw.random((questions, samples)) < (1 / (1 + np.exp(-logits)))[:, None]
        return found

    return hits(difficulty), hits(difficulty + change)


SINGLE = pytest.param(200, 1, marks=pytest.mark.slow)


@pytest.mark.parametrize(("questions", "samples"), [(30, 16), (100, 4), SINGLE])
def test_95_percent_of_paired_differences_hold_the_truth(questions: int, samples: int) -> None:
    draw = rng(13)
    base, other = paired_hits(draw, 2_000_000, 1)
    truth = other.mean() - base.mean()
    weights = resamples_of(questions, 4000, seed=0)
    held = []
    for _ in range(1500):
        base, other = paired_hits(draw, questions, samples)
        found = difference_interval((other.astype(int) - base).tolist(), weights)
        assert found is not None
        held.append(found.low <= truth <= found.high)
    assert COVERED[0] <= np.mean(held) <= COVERED[1]


def test_rare_differences_are_covered_too() -> None:
    draw = rng(14)
    weights = resamples_of(200, 4000, seed=0)
    held = []
    for _ in range(3000):
        found = difference_interval(
            draw.choice([1, -1, 0], (200, 1), p=[0.02, 0.01, 0.97]).tolist(), weights
        )
        assert found is not None
        held.append(found.low <= 0.01 <= found.high)
    assert np.mean(held) >= COVERED[0]


def paired_lengths(
    draw: np.random.Generator, questions: int, samples: int, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Means over samples of two models' lengths, with factors that differ from question to
    question."""
    long = draw.lognormal(6, sigma, questions)
    factor = draw.uniform(0.4, 1.0, questions)

    def means(expected: np.ndarray) -> np.ndarray:
        spread = draw.gamma(4, 1 / 4, (questions, samples))
        found: np.ndarray = (expected[:, None] * spread).mean(axis=1)
        return found

    return means(long), means(long * factor)


def token_coverage(questions: int, samples: int, sigma: float) -> dict[str, float]:
    """Of each figure, how many of 1200 intervals hold the truth."""
    draw = rng(15)
    mean = math.exp(6 + sigma**2 / 2)
    # E[1/X] of a mean of `samples` Gamma(4) / 4 is 4 s / (4 s - 1)
    ratios = 0.7 * 4 * samples / (4 * samples - 1)
    truths = {"mean": mean, "difference": -0.3 * mean, "means": 0.7, "ratios": ratios}
    weights = resamples_of(questions, 4000, seed=0)
    held = dict.fromkeys(truths, 0)
    for _ in range(1200):
        base, other = paired_lengths(draw, questions, samples, sigma)
        figures = {
            "mean": mean_interval(base, weights),
            "difference": bootstrap(other - base, weights),
            "means": bootstrap(other, weights, base),
            "ratios": bootstrap(other / base, weights),
        }
        for name, found in figures.items():
            held[name] += found.low <= truths[name] <= found.high
    return {name: count / 1200 for name, count in held.items()}


@pytest.mark.parametrize(("questions", "samples"), [(30, 16), (60, 4), SINGLE])
def test_95_percent_of_token_figures_hold_the_truth(questions: int, samples: int) -> None:
    covered = token_coverage(questions, samples, sigma=0.4)
    assert all(COVERED[0] <= each <= COVERED[1] for each in covered.values()), covered


def test_of_thirty_very_unequal_lengths_a_mean_is_known_less_well_than_a_ratio() -> None:
    covered = token_coverage(30, 16, sigma=0.7)  # a 95 % range of 1 to 16
    assert all(COVERED[0] <= covered[name] <= COVERED[1] for name in ("means", "ratios")), covered
    assert all(0.91 <= covered[name] <= 0.97 for name in ("mean", "difference")), covered


def test_95_percent_of_macro_accuracies_hold_the_truth() -> None:
    draw = rng(16)
    tasks = [(30, 16, 0.6, 0.4), (40, 16, 3.0, 1.0), (200, 4, 8.0, 0.4)]
    truth = np.mean([a / (a + b) for _, _, a, b in tasks])
    held = []
    for _ in range(1500):
        parts = []
        for questions, samples, a, b in tasks:
            chance = draw.beta(a, b, questions)[:, None]
            part = accuracy_interval(as_scores(draw.random((questions, samples)) < chance))
            assert part is not None
            parts.append(part)
        found = mean_of(parts)
        held.append(found.low <= truth <= found.high)
    assert COVERED[0] <= np.mean(held) <= COVERED[1]
