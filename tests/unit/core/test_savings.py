"""Predicted savings: conditional on how long the request already was, or no number at all."""

import itertools
import json
import random
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

import pytest

from stepgrpo_core import (
    Baseline,
    ExitSettings,
    InvalidCalibration,
    fit_baseline,
    parse_baseline,
)
from stepgrpo_core.savings.baseline import Conditions, Run

RUNS = [Run(prompt, 10 * n) for prompt in (20, 21, 40) for n in range(1, 101)]
SETTINGS = ExitSettings()
BOTH, STEPS = Conditions.of(SETTINGS), Conditions.of(SETTINGS, trials=False)


def test_predictions_are_conditional_on_the_length_so_far() -> None:
    baseline = fit_baseline("m", {"temperature": 0.6}, RUNS, bins=3)
    whole = baseline.predict(20, longer_than=0)
    late = baseline.predict(20, longer_than=500)
    assert whole is not None
    assert late is not None
    assert whole.tokens == pytest.approx(505)
    assert late.tokens == pytest.approx(755)  # mean of 510, 520, ... 1000
    assert whole.low < 100
    assert whole.high > 900
    assert 500 < late.low < late.high <= 1000


def test_no_basis_no_number() -> None:
    baseline = fit_baseline("m", {}, RUNS)
    assert baseline.predict(19, longer_than=0) is None
    assert baseline.predict(30, longer_than=0) is None
    assert baseline.predict(99, longer_than=0) is None
    assert baseline.predict(20, longer_than=900) is None  # only ten runs were that long


def test_it_survives_its_file() -> None:
    baseline = fit_baseline("m", {"temperature": 0.6}, RUNS)
    assert parse_baseline(json.loads(json.dumps(baseline.as_dict()))) == baseline


def test_bins_hold_enough_runs_and_never_split_a_prompt_length() -> None:
    runs = [Run(p, 5) for p in range(50) for _ in range(7)] + [Run(60, 5)]
    bins = fit_baseline("m", {}, runs).bins
    assert all(len(each.completion_tokens) >= 20 for each in bins)
    assert sum(len(each.completion_tokens) for each in bins) == len(runs)
    assert all(a.high < b.low for a, b in itertools.pairwise(bins))


def test_a_last_bin_that_is_too_small_joins_its_neighbor() -> None:
    (only,) = fit_baseline("m", {}, [Run(1, 5)] * 60 + [Run(2, 7)] * 3).bins
    assert (only.low, only.high, len(only.completion_tokens)) == (1, 2, 63)


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(InvalidCalibration, match="19 completed runs"):
        fit_baseline("m", {}, RUNS[:19])


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"model": "m", "sampling": {}, "bins": []},
        {"model": "m", "sampling": {}, "bins": [{"prompt_tokens": [1]}]},
        {
            "model": "m",
            "sampling": {},
            "bins": [{"prompt_tokens": [5, 1], "completion_tokens": []}],
        },
        {
            "model": "m",
            "sampling": {},
            "bins": [
                {"prompt_tokens": [5, 9], "completion_tokens": [1]},
                {"prompt_tokens": [9, 12], "completion_tokens": [1]},
            ],
        },
    ],
)
def test_what_is_no_calibration_is_refused(data: object) -> None:
    with pytest.raises(InvalidCalibration):
        parse_baseline(data)


def test_intervals_cover_and_means_are_unbiased_on_fresh_runs() -> None:
    """Long-tailed lengths, cut at random: 90 % intervals cover 87 to 93 %, bias under 2 %."""
    rng = random.Random(0)

    def length(prompt: int) -> int:
        return round(prompt * rng.lognormvariate(1.5, 0.6))

    prompts = [rng.randint(20, 60) for _ in range(4000)]
    baseline = fit_baseline("m", {}, [Run(p, length(p)) for p in prompts])
    covered, predicted, true, total = 0, 0.0, 0, 0
    for _ in range(20_000):
        prompt = rng.randint(20, 60)
        cut, full = rng.randint(0, 150), length(prompt)
        prediction = baseline.predict(prompt, longer_than=cut)
        if full <= cut or prediction is None:
            continue
        total += 1
        covered += prediction.low <= full <= prediction.high
        predicted += prediction.tokens
        true += full
    assert total > 10_000
    assert 0.87 < covered / total < 0.93
    assert abs(predicted / true - 1) < 0.02


def fitted(runs: Iterable[Run], conditions: Conditions = BOTH) -> Baseline:
    return fit_baseline("m", {}, runs, conditions)


def predicted(baseline: Baseline, tokens: int, steps: int | None, sure: float | None) -> float:
    found = baseline.predict(9, longer_than=tokens, steps=steps, confidence=sure)
    assert found is not None
    return found.tokens


def test_at_a_step_boundary_runs_are_asked_what_they_went_on_for() -> None:
    baseline = fitted(Run(9, 100 + n, (50,), (0.9,)) for n in range(20))
    found = baseline.predict(9, longer_than=60, steps=1, confidence=0.9)
    assert found is not None
    # 60 tokens, and what was after the 50 of theirs: 50 to 69. Quantiles at 0.05 * 21 - 1 and
    # 0.95 * 21 - 1 of the order statistics, from 0.
    assert found.tokens == pytest.approx(60 + 59.5)
    assert (found.low, found.high) == pytest.approx((110.05, 128.95))


def test_of_boundaries_the_nearest_in_tokens_steps_and_confidence_count() -> None:
    few = [Run(9, 100, (50,), (0.9,))] * 100
    sure = [Run(9, 300, (50,), (0.99,))] * 100
    many = [Run(9, 500, (10, 30, 50), (0.1, 0.2, 0.99))] * 100
    late = [Run(9, 900, (200,), (0.99,))] * 100
    baseline = fitted([*few, *sure, *many, *late])
    assert predicted(baseline, 50, 1, 0.9) == 100
    assert predicted(baseline, 50, 1, 0.97) == 300
    assert predicted(baseline, 50, 3, 0.97) == 500
    assert predicted(baseline, 190, 1, 0.97) == 190 + 700
    untried = fitted([*few, *sure, *many, *late], STEPS)
    assert predicted(untried, 50, 1, 0.97) == 200  # as near as the hundredth: both kinds
    assert predicted(untried, 50, 3, 0.97) == 500


def test_of_two_boundaries_around_a_cut_the_nearer_one_counts() -> None:
    baseline = fitted([Run(9, 100, (40, 60), (0.5, 0.9))] * 20)
    assert predicted(baseline, 45, 1, 0.9) == 45 + 60  # 5/45 + 0.4, against 15/45 + 1
    assert predicted(baseline, 55, 2, 0.9) == 55 + 40


def test_elsewhere_steps_tell_which_of_the_longer_runs_count() -> None:
    one, three = [Run(9, 100, (70,), (0.5,))] * 100, [Run(9, 200, (10, 20), (0.5, 0.5))] * 100
    for baseline in (fitted([*one, *three]), fitted([*one, *three], STEPS)):
        assert predicted(baseline, 60, 1, None) == 100
        assert predicted(baseline, 60, 3, None) == 200
        assert predicted(baseline, 60, None, None) == 150
        assert predicted(baseline, 60, None, 0.9) == 150
        assert predicted(baseline, 150, 3, None) == 200
        assert predicted(baseline, 60, 0, None) == 150  # no thinking, no steps


def test_where_too_few_are_alike_all_longer_runs_count() -> None:
    runs = [Run(9, 100, (50,), (0.9,))] * 19 + [Run(9, 300, (), ())] * 19
    assert predicted(fitted(runs), 50, 1, 0.9) == 200
    far = [Run(9, 100, (20,), (0.9,))] * 20 + [Run(9, 300)] * 0
    assert predicted(fitted(far), 40, 1, 0.9) == 120  # half the tokens: near enough
    assert predicted(fitted(far), 40, 2, 0.9) == 100  # and half the steps: not


def test_a_confidence_that_is_not_known_is_like_none() -> None:
    unknown = [Run(9, 100, (50,), (None,))] * 40
    known = [Run(9, 300, (50,), (0.2,))] * 40
    assert predicted(fitted([*unknown, *known]), 50, 1, 0.9) == 300
    assert predicted(fitted(unknown), 50, 1, 0.9) == 100  # all that were longer


def test_a_run_must_be_longer_than_the_request_for_a_number() -> None:
    baseline = fitted([Run(9, 100, (50,), (0.9,))] * 40)
    assert baseline.predict(9, longer_than=100, steps=1, confidence=0.9) is None


def test_other_markers_and_other_trials_cannot_be_compared() -> None:
    runs = [Run(9, 100, (50,), (0.9,))] * 20 + [Run(9, 300, (50,), (0.2,))] * 120
    baseline = fitted(runs)
    assert baseline.under(ExitSettings(threshold=0.5, max_probes=1)) is baseline
    marked = baseline.under(ExitSettings(markers=("Hmm",)))
    assert marked.conditions == Conditions()
    assert {(each.starts, each.confidences) for each in marked.bins} == {(None, None)}
    tried = baseline.under(ExitSettings(mean="minimum"))
    assert tried == fitted(runs, STEPS) == fitted(runs, STEPS).under(ExitSettings(mean="minimum"))
    assert predicted(tried, 50, 1, 0.9) == predicted(baseline, 50, None, None)


def test_steps_and_trials_survive_their_file() -> None:
    runs = [Run(9, n, (2, 2, n), (0.12345, None, 1.0)) for n in range(10, 40)]
    for conditions in (BOTH, STEPS):
        baseline = fitted(runs, conditions)
        data = json.loads(json.dumps(baseline.as_dict()))
        assert parse_baseline(data) == baseline
        assert data["markers"] == ["Wait", "Alternatively"]
        assert data["bins"][0]["steps"][0] == [2, 2, 10]
    assert fitted(runs).as_dict()["bins"][0]["confidences"][0] == [123, None, 1000]
    assert fitted(runs).as_dict()["trials"]["probe_max_tokens"] == 20
    assert fitted(runs[::-1]) == fitted(runs)


def test_files_of_before_steps_mean_what_they_meant() -> None:
    lengths = [32] * 22 + [42] * 15
    data: dict[str, Any] = {
        "model": "trained",
        "sampling": {"temperature": 1.0, "top_p": 1.0},
        "bins": [
            {"prompt_tokens": [30, 30], "completion_tokens": lengths},
            {"prompt_tokens": [32, 42], "completion_tokens": [40, 40, 46]},
        ],
    }
    baseline = parse_baseline(data)
    assert baseline.as_dict() == data
    assert baseline.under(ExitSettings(markers=("Hmm",))) == baseline
    # Of 37 runs 15 took 42 tokens, the others 32: quantiles at 0.05 * 36 and 0.95 * 36, from 0.
    known: list[dict[str, Any]] = [{}, {"steps": 1}, {"steps": 2, "confidence": 0.99}]
    for seen in known:
        found = baseline.predict(30, longer_than=31, **seen)
        assert found is not None
        assert found.tokens == pytest.approx(32 + 150 / 37)
        assert (found.low, found.high) == (32, 42)
        assert baseline.predict(30, longer_than=32, **seen) is None  # fifteen


def damaged(**changes: object) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "prompt_tokens": [1, 2],
        "completion_tokens": [5, 9],
        "steps": [[3], [3, 9]],
        "confidences": [[1000], [None, 3]],
    }
    head: dict[str, Any] = {
        "model": "m",
        "sampling": {},
        "markers": ["Wait"],
        "trials": {"mean": "geometric"},
    }
    entry |= {name: value for name, value in changes.items() if name in entry}
    head |= {name: value for name, value in changes.items() if name not in entry}
    return {**head, "bins": [entry]}


def test_what_is_to_be_damaged_is_sound() -> None:
    (only,) = parse_baseline(damaged()).bins
    assert (only.starts, only.confidences) == (((3,), (3, 9)), ((1.0,), (None, 0.003)))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"steps": [[3]]}, "steps of 1 runs where there are 2"),
        ({"confidences": [[3]]}, "confidences of 1 runs where there are 2"),
        ({"steps": [[3], [9, 3]]}, "9 tokens begin after .9, 3.; they must ascend"),
        ({"steps": [[3], [3, 10]]}, "within the run"),
        ({"steps": [[-1], [3, 9]]}, "within the run"),
        ({"steps": [None, [3, 9]]}, "begin after None"),
        ({"steps": [["x"], [3, 9]]}, "not a calibration"),
        ({"steps": 3}, "not a calibration"),
        ({"confidences": [[1000], [3]]}, "one from 0 to 1 or none belongs to each"),
        ({"confidences": [[1001], [None, 3]]}, "one from 0 to 1"),
        ({"confidences": [None, [None, 3]]}, "confidences None of a run"),
        ({"completion_tokens": 5}, "not a calibration"),
        ({"markers": 5}, "not a calibration"),
        ({"trials": 5}, "not a calibration"),
        ({"markers": None}, "trials without markers"),
    ],
)
def test_damaged_steps_and_trials_are_refused_with_the_fault(
    changes: dict[str, Any], fault: str
) -> None:
    with pytest.raises(InvalidCalibration, match=fault):
        parse_baseline(damaged(**changes))


def test_a_file_that_lacks_what_it_names_is_refused() -> None:
    data = damaged()
    del data["bins"][0]["confidences"]
    with pytest.raises(InvalidCalibration, match="confidences"):
        parse_baseline(data)
    with pytest.raises(InvalidCalibration, match="begin after None"):
        fitted(RUNS)


def world(rng: random.Random) -> Run:
    """A run of passes, each as long as the prompt's kind has it, that becomes surer of itself."""
    prompt, sure = rng.randint(20, 60), rng.uniform(0.3, 1)
    starts: list[int] = []
    trials: list[float] = []
    tokens = 0
    while True:
        tokens += round(prompt * rng.lognormvariate(0, 0.5)) + 1
        if rng.random() < sure**3:
            return Run(prompt, tokens + rng.randint(1, 9), tuple(starts), tuple(trials))
        starts.append(tokens)
        trials.append(min(max(sure + rng.gauss(0, 0.05), 0), 1))


@pytest.mark.parametrize("count", [600, 4000])
def test_intervals_cover_where_steps_and_confidence_tell_much(count: int) -> None:
    """90 % intervals cover 87 to 97 %; with enough runs they are half as wide as those of lengths
    alone, and their means nearer."""
    rng = random.Random(count)
    runs = [world(rng) for _ in range(count)]
    known, lengths = fitted(runs), fitted(runs, Conditions())
    covered, widths, errors, total = 0, [0.0, 0.0], [0.0, 0.0], 0
    for fresh in (world(rng) for _ in range(1500)):
        trials = fresh.confidences or ()
        sure = next((place for place, c in enumerate(trials) if (c or 0.0) > 0.6), None)
        if sure is None:
            continue
        cut = (fresh.starts or ())[sure]
        trial = trials[sure]
        asked = {"longer_than": cut, "steps": 1 + bisect_left(fresh.starts or (), cut)}
        found = known.predict(fresh.prompt_tokens, **asked, confidence=trial)
        plain = lengths.predict(fresh.prompt_tokens, **asked, confidence=trial)
        if found is None or plain is None:
            continue
        total += 1
        covered += found.low <= fresh.completion_tokens <= found.high
        for place, each in enumerate((found, plain)):
            widths[place] += each.high - each.low
            errors[place] += abs(each.tokens - fresh.completion_tokens)
    assert total > 400
    assert 0.87 < covered / total < 0.97
    if count == 4000:
        assert 0 < widths[0] < 0.6 * widths[1]
        assert errors[0] < 0.6 * errors[1]
