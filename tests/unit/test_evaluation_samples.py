"""Several samples of a question: pass@k, majority votes, groups of questions."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.training.records import record
from training.evaluation.passing import majority, pass_at, pass_at_k, within
from training.evaluation.records import Record
from training.evaluation.report import write_report
from training.evaluation.statistics import summarize, summarize_groups


def samples(question: int, marks: str, answers: str = "", **changes: Any) -> list[Record]:
    """Samples of a question by marks (1 correct, 0 wrong, ? unscored) and letters of answers."""
    correct = {"1": True, "0": False, "?": None}
    return [
        record(
            question,
            place,
            correct=correct[mark],
            same_as=answers.index(answers[place]) if answers[place : place + 1].strip() else None,
            **changes,
        )
        for place, mark in enumerate(marks)
    ]


@pytest.mark.parametrize(("n", "c"), [(5, 0), (5, 2), (6, 6), (4, 1)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n: int, c: int) -> None:
    for k in range(1, n + 1):
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_a_mean_over_questions_without_unscored_samples() -> None:
    found = pass_at(samples(1, "1000") + samples(2, "1111") + samples(3, "00??"))
    assert list(found) == [2, 4]
    assert found[2].value == pytest.approx((0.5 + 1 + 0) / 3)
    assert found[4].value == pytest.approx((1 + 1) / 2)  # the third has two graded samples
    assert found[2].low < found[2].value < found[2].high
    assert pass_at(samples(1, "1") + samples(2, "0")) == {}


@pytest.mark.parametrize(
    ("marks", "answers", "elected"),
    [
        ("1100", "aabc", 1),
        ("1000", "abbc", 0),  # most agree on a wrong answer
        ("1100", "aabb", 0.5),  # a tie counts in part
        ("100", "a  ", 1),  # without an answer there is no vote
        ("000", "   ", 0),
        ("1?00", "a bb", 0),
    ],
)
def test_the_most_frequent_answer_is_elected(marks: str, answers: str, elected: float) -> None:
    formatted = {place: bool(each.strip()) for place, each in enumerate(answers)}
    votes = [
        record(1, each.sample, correct=each.correct, same_as=each.same_as,
               formatted=formatted[each.sample])
        for each in samples(1, marks, answers)
    ]  # fmt: skip
    found = majority(votes)
    assert found is not None
    assert found.value == elected


def test_there_is_no_majority_without_several_samples_or_votes() -> None:
    assert majority(samples(1, "1", "a") + samples(2, "0", "a")) is None
    assert majority(samples(1, "11")) is None  # of an older version, which told nothing apart
    assert summarize(samples(1, "11", "aa"), resamples=100).majority is not None


def grouped(tokens: int) -> list[Record]:
    levels = ["9", "10", "10"]
    return [
        each
        for place, level in enumerate(levels)
        for each in samples(place, "10", "ab", tokens=tokens, groups=(("level", level),))
    ]


def test_groups_are_summarised_against_the_baselines_same_questions() -> None:
    found = summarize_groups(grouped(50), grouped(100), "t", resamples=100)
    assert list(found) == [("level", "9"), ("level", "10")]
    assert [each.questions for each in found.values()] == [1, 2]
    versus = found["level", "10"].versus
    assert versus is not None
    assert versus.ratio_of_means.value == 0.5
    older = [*grouped(100)[:2], *(record(int(q), s) for q in "12" for s in (0, 1))]
    mixed = summarize_groups(grouped(50), older, "t", resamples=100)  # resumed by this version
    assert mixed["level", "10"].versus is not None


def test_the_report_has_tables_of_samples_and_of_groups(tmp_path: Path) -> None:
    records = {"base": {"t": grouped(100)}, "x": {"t": grouped(50)}}
    write_report(tmp_path, records, baseline="base")
    text = (tmp_path / "results.md").read_text()
    assert "| contender | pass@2, % | maj@2, % |" in text
    assert "| x | 100.0 (" in text
    assert "| level | questions | contender | accuracy, %" in text
    assert "| 10 | 2 | x | 50.0 (" in text
    whole = json.loads((tmp_path / "results.json").read_text())
    assert whole["results"]["t"]["x"]["pass_at"]["2"]["value"] == 1
    assert whole["groups"]["t"]["level"]["9"]["x"]["versus"]["ratio_of_means"]["value"] == 0.5
    plain = {"base": {"t": [record(1), record(2)]}}
    write_report(tmp_path, plain, baseline="base")
    assert "pass@" not in (tmp_path / "results.md").read_text().partition("## t")[2]


def test_the_report_has_the_accuracy_within_budgets(tmp_path: Path) -> None:
    records = {
        name: {"demo": [record(each, tokens=tokens * (each + 1)) for each in range(4)]}
        for name, tokens in (("base", 100), ("short", 10))
    }
    write_report(tmp_path, records, baseline="base")
    text = (tmp_path / "results.md").read_text()
    assert "| accuracy within N tokens, % | 4 | 8 | 16 | 32 | 64 | 128 | 256 |" in text
    (line,) = (each for each in text.splitlines() if each.startswith("| short | 0.0"))
    assert line.count("100.0 (") == 3  # beyond its longest: its accuracy
    found = json.loads((tmp_path / "results.json").read_text())["within"]["demo"]
    assert [found["base"][size]["value"] for size in ("32", "64", "128", "256")] == [
        0,
        0,
        0.25,
        0.5,
    ]


def test_what_only_closing_does_is_told_apart(tmp_path: Path) -> None:
    base = [record(1), record(2, correct=False, exit="eos_in_thinking"), record(3)]
    exits = [record(1), record(2, exit="eos_in_thinking"), record(3, correct=False, exit="budget")]
    write_report(tmp_path, {"base": {"t": base}, "x": {"t": exits}}, baseline="base")
    versus = json.loads((tmp_path / "results.json").read_text())["results"]["t"]["x"]["versus"]
    assert versus["accuracy"]["value"] == 0
    assert versus["accuracy_by_exits"]["value"] == pytest.approx(-1 / 3)
    assert "| difference by exits, points |" in (tmp_path / "results.md").read_text()


def test_within_a_budget_longer_completions_count_as_wrong() -> None:
    lengths = {0: (10, 100), 1: (60, 130), 2: (5, 200)}
    records = [
        record(question, sample, tokens=tokens, correct=None if tokens == 5 else tokens != 60)
        for question, found in lengths.items()
        for sample, tokens in enumerate(found)
    ]
    found = within(records)
    # Of 200 tokens the budgets are 16, 32, 64 and 128: a sixteenth is 12.5.
    assert list(found) == [16, 32, 64, 128]
    # Within 64: 1 of 2; 0 of 2, since the short one is wrong; 0 of the 1 that is scored.
    assert found[64].value == pytest.approx(1 / 6)
    assert found[128].value == pytest.approx((2 / 2 + 0 / 2 + 0) / 3)
    assert found[16].low < found[16].value < found[16].high
    assert within([record(0, correct=None)]) == {}
