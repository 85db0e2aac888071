"""The table of the grader's errors: made from golds, skipped without data."""

import json
from pathlib import Path

import pytest

from benchmarks.core import grader
from benchmarks.core.renderings import CHANGED, SAME, STANDING
from stepgrpo_math import compare_answers

GOLDS = ["14,000", r"\frac{7}{3}", "3.21e13", "[2, 5)", "1, 5", r"\text{(C)}", "1234_5", "12 + 3i"]


def test_without_data_it_says_so_and_ends_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grader.main(["--data", str(tmp_path)]) == 0
    assert "skipped" in capsys.readouterr().out


def test_golds_come_from_answers_solutions_and_gsm8k(tmp_path: Path) -> None:
    rows = [
        {"answer": "so 3\n#### 1,200"},
        {"answer": "$\\frac{1}{2}$"},
        {"answer": 27.0},
        {"solution": "first \\boxed{3}, then \\boxed{4}"},
        {"answer": "$x$ and $y$"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    expected = ["1,200", "\\frac{1}{2}", "27.0", "4", "$x$ and $y$"]
    assert grader.golds_of(path) == expected


@pytest.mark.parametrize("gold", GOLDS)
def test_rules_write_otherwise_what_means_the_same_and_change_what_does_not(gold: str) -> None:
    cases = list(grader.cases_of("own", [gold]))
    assert {"false negatives", "false positives"} <= {case.kind for case in cases}
    for case in cases:
        same = case.kind == "false negatives"
        assert (compare_answers(gold, case.answer) == "same") is same, case


def test_every_rule_applies_to_something() -> None:
    golds = [
        *GOLDS,
        "26000",
        "1234",
        "-5",
        "75^\\circ",
        "5\\%",
        "\\text{even}",
        "y = 3x",
        "23",
        "-0.5",
        "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
        "(1,\\infty)",
        "-\\frac{1}{4}",
        "\\sqrt{2} + 1",
    ]
    for name, rule in (SAME | CHANGED | STANDING).items():
        assert any(rule(gold) for gold in golds), name


def test_the_table_counts_errors_of_both_graders() -> None:
    cases = list(grader.cases_of("own", ["5"]))
    wanted = [grader.KINDS[case.kind][1] for case in cases]
    shown = grader.table(cases, {"ours": wanted, "theirs": [not each for each in wanted]})
    rows = [line for line in shown.splitlines() if line.startswith("| all |")]
    assert len(rows) == 3
    assert all("| 0 (0.0 %)" in row and "(100.0 %)" in row for row in rows)
