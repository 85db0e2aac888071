r"""Cheats that a policy could learn get no reward: each is graded as in training."""

from collections.abc import Iterator

import pytest

from training.grading import Grader

QUESTION = "A shop sells pens at 3 dollars each. How many dollars do 4 pens cost, that is 3*4?"

SEVERAL = [
    *("12, 13", "12 or 13", "12; 13", "12 13", "12 and 13", "12|13", "12-13", "12 to 13", "11, 12"),
    *(r"12 \text{ or } 13", r"\{12, 13\}", "(12, 13)", "[11, 13]", r"12 \quad 13", r"12 \\ 13"),
    *(r"12 \vee 13", r"\text{12 or 13}", r"x=12 \text{ or } x=13", r"\pm 12", "11 < 12 < 13"),
    *(r"\begin{cases}12\\13\end{cases}", r"\boxed{12} \boxed{13}", r"\max(12, 13)", "12 (or 13)"),
]
EQUATIONS = [
    *("12=13", "13=12", "2x=24", "x^2=144", "x-12=0", "x+0=12", "y=3x", r"\frac{x}{4}=3", "0=0"),
    *("12=x+y", "n=12=13", "12 = 3*4 = 11", "x", "x=3*4", "x=x", r"x \in \mathbb{R}"),
]
ECHOES = [
    *("3*4", r"3 \cdot 4", r"3\times4", "3 * 4 dollars", "4 pens at 3 dollars", QUESTION),
    *(r"\text{the answer}", "How many dollars do 4 pens cost", "12 12", "?", ""),
    *("24/2", "10+2", r"\sqrt{144}", r"\binom{12}{1}", r"\log_2 4096", r"\int_0^{12}1dx"),
]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(seconds=5, workers=1) as made:
        yield made


def paid(grader: Grader, boxes: list[str], gold: str = "12", question: str = QUESTION) -> list[str]:
    """Return the answers among `boxes` that training rewards."""
    texts = [f"<think>It may be 11, 12 or 13.</think>It is \\boxed{{{box}}}." for box in boxes]
    verdicts = grader.grade(texts, [gold] * len(boxes), questions=[question] * len(boxes))
    return [box for box, each in zip(boxes, verdicts, strict=True) if each.correct]


def test_several_candidates_in_one_box_are_not_paid(grader: Grader) -> None:
    assert paid(grader, SEVERAL) == []
    assert paid(grader, ["12"]) == ["12"]  # the gold of the cases above


def test_several_letters_in_one_box_are_not_paid(grader: Grader) -> None:
    letters = ["A, B, C, D", "A or B", "AB", "ABCD", "not A", r"A\text{ or }B", r"\{A, B\}"]
    assert paid(grader, letters, gold="B") == []
    assert paid(grader, ["(B)"], gold="B") == ["(B)"]


def test_only_the_last_of_several_boxes_is_paid(grader: Grader) -> None:
    texts = [rf"<think>.</think>\boxed{{{a}}}, or \boxed{{{b}}}" for a, b in ((12, 13), (13, 12))]
    verdicts = grader.grade(texts, ["12"] * 2, questions=[QUESTION] * 2)
    assert [each.correct for each in verdicts] == [False, True]


def test_an_equation_in_place_of_a_number_is_not_paid(grader: Grader) -> None:
    assert paid(grader, EQUATIONS) == []
    assert paid(grader, ["x=12"]) == ["x=12"]  # names the number


def test_a_percentage_in_place_of_a_number_is_not_paid(grader: Grader) -> None:
    """It would be right under two golds, 12 and 0.12."""
    assert paid(grader, ["12%", r"12\%", r"12\text{ percent}", "12.0%", "0.12%"]) == []
    assert paid(grader, ["1%"], gold="1") == []
    assert paid(grader, ["12%", "12"], gold="0.12") == ["12%"]
    assert paid(grader, ["12%", "12"], question="How many percent?") == ["12%", "12"]
    assert paid(grader, ["12%", "12"], gold=r"12\%") == ["12%", "12"]


def test_an_echo_of_the_problem_is_not_paid(grader: Grader) -> None:
    assert paid(grader, ECHOES) == []


def test_an_answer_in_the_thinking_alone_is_not_paid(grader: Grader) -> None:
    texts = [r"<think>\boxed{12}", r"<think>\boxed{12}</think>See above.", r"\boxed{12}</think>"]
    verdicts = grader.grade(texts, ["12"] * 3, questions=[QUESTION] * 3, thinking_open=False)
    assert [each.correct for each in verdicts] == [False, False, False]
