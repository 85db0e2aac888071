r"""Sameness of answers: the right verdict for every kind, and one notion with and without sympy."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgrpo_core import last_box
from stepgrpo_core.sameness import (
    Sameness,
    compare,
    is_copied,
    is_stray_percent,
    normalize,
    same_value,
    within_bounds,
)
from stepgrpo_math import compare_answers
from tests.support.core.answers import CASES

HIDDEN = Path(__file__).parents[4] / "shared" / "cases" / "grader.jsonl"
ROWS = [(kind, *case) for kind, cases in CASES.items() for case in cases]


@pytest.mark.parametrize(("kind", "gold", "box", "correct"), ROWS)
def test_every_kind_of_answer_gets_the_right_verdict(
    kind: str, gold: str, box: str, correct: bool
) -> None:
    assert (compare_answers(gold, box) == "same") == correct, kind


@pytest.mark.parametrize(("gold", "box"), [row[:2] for row in CASES["unevaluated"]])
def test_arithmetic_left_standing_is_named_unevaluated(gold: str, box: str) -> None:
    assert compare_answers(gold, box) == "unevaluated"


@pytest.mark.parametrize(("gold", "box"), [row[1:3] for row in ROWS])
def test_the_light_notion_never_contradicts_the_full_one(gold: str, box: str) -> None:
    light = compare(gold, box)
    assert light is None or light == compare_answers(gold, box)
    if same_value(gold, box) and light != "same":
        assert compare_answers(box, gold) == "same"


@pytest.mark.parametrize("kind", CASES)
def test_every_kind_has_cases_of_both_verdicts(kind: str) -> None:
    verdicts = [correct for _, _, correct in CASES[kind]]
    assert len(verdicts) >= 8
    assert set(verdicts) == ({False} if kind == "unevaluated" else {True, False})


def test_the_shared_cases_get_the_right_verdicts() -> None:
    if not HIDDEN.is_file():
        pytest.skip("the shared cases are not beside the repository")
    rows = [json.loads(line) for line in HIDDEN.read_text(encoding="utf-8").splitlines()]
    wrong = []
    for row in rows:
        box = last_box(row["completion"])
        found = None if box is None else compare_answers(row["gold"], box)
        if (found == "same") is not row["correct"]:
            wrong.append((row, found))
    assert not wrong


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\left( 3,\, \dfrac{1}{2} \right)", r"(3, \frac{1}{2})"),
        ("$12~\\mathrm{cm}$.", r"12\text{cm}"),
        (r"\text{The answer is } 7", "7"),
        (r"{\text{7.}}", "7"),
        (r"\frac12", r"\frac{1}{2}"),
        ("2 3", "2 3"),
        ("x \u2264 5", r"x\le 5"),
        (r"\(7\)", "7"),
    ],
)
def test_answers_have_one_spelling(text: str, expected: str) -> None:
    assert normalize(text) == normalize(expected)


@given(st.text(alphabet="01.,;() {}[]\\=<>+-^_/%~:aix|&!", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_taken_and_equals_itself(text: str) -> None:
    assert compare(text, text) == "same"
    assert compare("7", text) in {"same", "different", "unevaluated", None}
    assert compare(text, "7") in {"same", "different", "unevaluated", None}


HOSTILE = [
    "1," * 1000,
    "(1,2)," * 330,
    "1=" * 1000,
    r"\pm 1," * 280,
    r"1\approx " * 200,
    r"1\to " * 300,
    "x<1 or " * 280,
    r"\text{" * 150 + "a" + "}" * 150,
    r"\frac" * 390,
    " " * 1999,
    "9" * 1999,
    "1 " * 999,
    "a " * 999,
    "{" * 39 + "1," * 900 + "}" * 39,
    r"\begin{matrix}" + "1&" * 900 + r"\end{matrix}",
    "Option " * 280,
    "cm/" * 660,
    "7 " + "a" * 1990 + "^",
    "7 " + "ab " * 600 + "^",
    "7 " + r"\text{a}" * 240 + "!",
    "1 base |^" * 220,
    "~" * 1990,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:8])
def test_hostile_text_within_the_bounds_costs_little(text: str) -> None:
    started = time.process_time()
    for pair in ((text, text + "1"), ("7", text), (text, "7"), (r"(1,\infty)", text)):
        verdict: Sameness | None = compare(*pair)
        assert verdict != "same" or pair[0] == pair[1]
    assert time.process_time() - started < 4


def test_nesting_is_followed_to_a_bound() -> None:
    assert compare(_nested(5, "0.5"), _nested(5, "1/2")) == "same"
    assert compare(_nested(20, "0.5"), _nested(20, "1/2")) is None


def _nested(levels: int, value: str) -> str:
    return "(1, " * levels + value + ")" * levels


def test_what_is_out_of_bounds_is_same_only_by_spelling() -> None:
    long = "1+" * 1500 + "1"
    assert not within_bounds(long)
    assert not within_bounds("(" * 50 + ")" * 50)
    assert compare(long, long) == "same"
    assert compare(long, "7") is None
    assert not same_value(long, "7")


@pytest.mark.parametrize(
    ("answer", "copied"),
    [
        ("-10-4(n-5)", True),
        ("w=-10 - 4(n - 5)", True),
        ("10-4n", False),
        ("n", False),
        ("1/2", False),
        ("-4n+10", False),
    ],
)
def test_a_formula_handed_back_is_known_by_the_question(answer: str, copied: bool) -> None:
    question = "With half of it, $\\frac{1}{2}$ or 1/2, simplify $-10-4(n-5)$, that is $10 - 4n$."
    assert is_copied(question, "10-4n", answer) is copied


@pytest.mark.parametrize(
    ("question", "gold", "answer", "stray"),
    [
        ("How many pens?", "12", "12%", True),
        ("How many pens?", "12", r"12.0\%", True),
        ("How many percent are left?", "12", "12%", False),
        ("Wie viel Prozent?", "12", "12%", False),
        ("How many pens?", "12%", "12%", False),
        ("How many pens?", "0.12", "12%", False),
        ("How many pens?", "12", "12", False),
        ("How many pens?", "x", "12%", False),
        ("How many pens?", "12", "x", False),
        ("How many pens?", "0", "0%", False),
    ],
)
def test_a_percent_sign_is_a_unit_only_where_the_question_speaks_of_one(
    question: str, gold: str, answer: str, stray: bool
) -> None:
    assert is_stray_percent(question, gold, answer) is stray
