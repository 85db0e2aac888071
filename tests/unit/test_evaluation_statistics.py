"""Figures of a contender and of a comparison, computed by hand."""

import math
from typing import Any

import numpy as np
import pytest

from tests.support.training.records import record
from training.evaluation.intervals import accuracy_interval
from training.evaluation.records import Record
from training.evaluation.statistics import Unpaired, summarize, summarize_tasks

FAST: dict[str, Any] = {"resamples": 500}


def lengths(*tokens: int, **changes: Any) -> list[Record]:
    """One question per number of tokens."""
    return [record(place, tokens=each, **changes) for place, each in enumerate(tokens)]


def test_every_figure_of_two_questions_by_hand() -> None:
    found = summarize(
        [
            record(1, 0, tokens=100, steps=2, probes=1, probe_tokens=6, exit="confident"),
            record(1, 1, tokens=300, steps=4, correct=False, lenient=True, discarded_tokens=8),
            record(2, 0, tokens=500, steps=0, correct=None, formatted=False, ended=False),
            record(2, 1, tokens=100, steps=2, correct=True, reasoning_tokens=40),
        ],
        **FAST,
    )
    assert (found.questions, found.completions) == (2, 4)
    assert (found.unscored, found.lenient_unscored) == (1, 1)
    assert found.accuracy == accuracy_interval([[True, False], [True]])
    assert found.accuracy is not None
    assert found.accuracy.value == 0.75
    assert found.lenient is not None
    assert found.lenient.value == 1
    assert found.formatted == 0.75
    assert found.truncated == 0.25
    assert found.tokens.value == 250
    assert found.net_tokens.value == 251.5
    assert (found.probe_tokens, found.discarded_tokens, found.probes) == (1.5, 2, 0.25)
    assert (found.steps, found.reasoning_tokens) == (2, 70)
    assert found.tokens_per_step == 125
    assert found.exits == {"confident": 1, "natural": 3}
    assert found.versus is None


def test_unscored_completions_are_never_wrong() -> None:
    mixed = summarize([record(1), record(2, correct=None), record(3, correct=False)], **FAST)
    assert mixed.accuracy is not None
    assert mixed.accuracy.value == 0.5
    nothing = summarize([record(1, correct=None)], [record(1)], **FAST)
    assert nothing.accuracy is None
    assert nothing.versus is not None
    assert nothing.versus.accuracy is None


def test_both_compression_rates_and_their_net_by_hand() -> None:
    found = summarize(
        lengths(100, 100, probe_tokens=20), lengths(100, 400, probe_tokens=0), **FAST
    ).versus
    assert found is not None
    assert found.ratio_of_means.value == pytest.approx(200 / 500)
    assert found.mean_of_ratios.value == pytest.approx((1 + 0.25) / 2)
    assert found.net_ratio_of_means.value == pytest.approx(240 / 500)
    assert found.net_mean_of_ratios.value == pytest.approx((1.2 + 0.3) / 2)
    assert found.tokens.value == -150


def test_the_difference_uses_completions_that_both_could_be_graded() -> None:
    mine = [record(1, 0), record(1, 1, correct=None), record(2, 0), record(2, 1, correct=False)]
    other = [record(1, 0, correct=False), record(1, 1), record(2, 0, correct=None), record(2, 1)]
    found = summarize(mine, other, **FAST).versus
    assert found is not None
    assert found.accuracy is not None
    assert found.accuracy.value == (1 + -1) / 2


def test_pairs_belong_together_whatever_the_order_of_the_records() -> None:
    mine = [record(q, s, tokens=10 * q + s, correct=q > s) for q in range(5) for s in range(3)]
    other = [record(q, s, tokens=20 * q + s + 1) for q in range(5) for s in range(3)]
    assert summarize(mine[::-1], other, **FAST) == summarize(mine, other[::-1], **FAST)


@pytest.mark.parametrize(
    "other", [[record(1)], [record(1), record(3)], [record(1), record(2), record(2, 1)]]
)
def test_contenders_that_were_not_asked_the_same_are_not_compared(other: list[Record]) -> None:
    with pytest.raises(Unpaired, match="other questions or samples"):
        summarize([record(1), record(2)], other, **FAST)


def test_no_records_and_a_sample_that_is_there_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="no completions"):
        summarize([], **FAST)
    with pytest.raises(ValueError, match="same sample twice"):
        summarize([record(1), record(1)], **FAST)


def test_the_macro_mean_counts_tasks_alike_and_completions_not() -> None:
    large = [record(q, tokens=100, correct=q < 9) for q in range(10)]
    small = [record(q, tokens=500, correct=q < 1) for q in range(2)]
    tasks, macro = summarize_tasks({"large": large, "small": small}, **FAST)
    assert macro is not None
    assert macro.accuracy is not None
    assert macro.accuracy.value == pytest.approx((0.9 + 0.5) / 2)
    assert macro.tokens.value == 300
    assert (macro.questions, macro.completions) == (12, 12)
    assert macro.tokens_per_step == (50 + 250) / 2
    assert tasks["large"].tokens.value == 100
    assert macro.exits == {"natural": 12}


def test_the_macro_ratio_is_that_of_the_macro_means() -> None:
    mine = {"a": lengths(100, 100, 100), "b": lengths(100, 200, 300)}
    base = {"a": lengths(100, 200, 300), "b": lengths(1000, 2000, 3000)}
    tasks, macro = summarize_tasks(mine, base, resamples=4000)
    assert macro is not None
    assert macro.versus is not None
    assert macro.versus.ratio_of_means.value == pytest.approx((100 + 200) / (200 + 2000))
    ratios = (1 + 1 / 2 + 1 / 3) / 3, 0.1
    assert macro.versus.mean_of_ratios.value == pytest.approx(sum(ratios) / 2)
    assert macro.versus.tokens.value == pytest.approx((-100 - 1800) / 2)
    assert tasks["b"].versus is not None
    assert tasks["b"].versus.ratio_of_means.value == pytest.approx(0.1)


def test_the_macro_ratio_resamples_every_task_by_itself() -> None:
    draw = np.random.default_rng(5)
    sets = [draw.uniform(100, 900, 30).astype(int).tolist() for _ in range(4)]
    mine = {"a": lengths(*sets[0]), "b": lengths(*sets[1])}
    base = {"a": lengths(*sets[2]), "b": lengths(*sets[3])}
    _, macro = summarize_tasks(mine, base, resamples=4000)
    assert macro is not None
    assert macro.versus is not None
    above, below = np.array([sets[0], sets[1]]).sum(), np.array([sets[2], sets[3]]).sum()
    residuals = [
        np.array(sets[task]) - above / below * np.array(sets[task + 2]) for task in range(2)
    ]
    variance = sum(each.var(ddof=1) / 30 for each in residuals)
    half = 2.0452 * math.sqrt(variance) / (below / 30)
    found = macro.versus.ratio_of_means
    assert found.value == pytest.approx(above / below)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)


def test_one_task_alone_has_no_macro_mean_and_other_tasks_no_comparison() -> None:
    assert summarize_tasks({"a": lengths(1, 2)}, **FAST)[1] is None
    with pytest.raises(Unpaired, match=r"other tasks: \['b'\]"):
        summarize_tasks({"a": lengths(1, 2)}, {"a": lengths(1, 2), "b": lengths(1)}, **FAST)


def test_a_task_without_any_graded_completion_leaves_no_macro_accuracy() -> None:
    records = {"a": [record(1)], "b": [record(1, correct=None)]}
    _, macro = summarize_tasks(records, **FAST)
    assert macro is not None
    assert macro.accuracy is None


def test_the_same_records_give_the_same_summary() -> None:
    records = [record(q, s, tokens=37 * q % 101 + s) for q in range(20) for s in range(2)]
    assert summarize(records) == summarize(list(records))
