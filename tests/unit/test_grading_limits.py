"""Limits of grading: hostile answers cost little, healthy ones are scored whatever else happens."""

import multiprocessing
import os
import time
from collections.abc import Iterator

import pytest

from stepgrpo_core.rewards import Accuracy
from tests.support.training.rewarding import completion, score
from training.grading import Grader, Verdict, count_unscored
from training.grading.workers import CHANCES_PER_GOLD, GradingJob, chances

TOWER = r"9^{9^{9^{9}}}"
SUM = r"\sum_{n=1}^{90000000}\frac{1}{n^{n}+x}"
SLOW = r"\sum_{n=1}^{90000001}\frac{1}{n^{n}+x}"  # no more left standing than in `SUM`
SECONDS = 2.0


def boxed(answer: str) -> str:
    return rf"<think>a</think>\boxed{{{answer}}}"


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(seconds=SECONDS, workers=1) as made:
        made.grade([boxed("x+1")], ["1+x"])  # warm
        yield made


@pytest.mark.parametrize("answer", [TOWER, "((9!)!)!", r"\sum_{n=1}^{90000000}\frac{1}{n^{n}}"])
def test_a_hostile_answer_to_a_number_is_wrong_not_unscored(grader: Grader, answer: str) -> None:
    started = time.process_time()
    assert grader.grade([boxed(answer)], ["5"])[0].correct is False
    assert time.process_time() - started < SECONDS  # it cost this process nothing


def test_a_formula_out_of_time_is_unscored_counted_and_never_paid(grader: Grader) -> None:
    before = grader.unscored["timeout"]
    verdicts = grader.grade([boxed(SLOW), boxed("1+x")], [SUM, "x+1"])
    assert verdicts == [Verdict(None, True, "timeout"), Verdict(True, True, "equal")]
    assert grader.unscored["timeout"] == before + 1
    assert count_unscored(verdicts) == {"timeout": 1}


def test_a_hostile_answer_leaves_the_worker_warm(grader: Grader) -> None:
    before = {each.pid for each in multiprocessing.active_children()}
    grader.grade([boxed(SLOW), boxed(TOWER)], [SUM, "5"])
    assert {each.pid for each in multiprocessing.active_children()} == before


@pytest.mark.slow
def test_healthy_answers_are_scored_among_hostile_ones_with_every_core_busy() -> None:
    burners = [
        multiprocessing.get_context("spawn").Process(target=_burn, daemon=True)
        for _ in range(os.cpu_count() or 1)
    ]
    for each in burners:
        each.start()
    try:
        healthy = [(f"x^2+{n}x", f"x(x+{n})") for n in range(24)]
        hostile = [(SUM, SLOW), ("y", SLOW), ("5", TOWER)]
        pairs = [*healthy[:8], *hostile, *healthy[8:]]
        with Grader(seconds=1.0, workers=1) as loaded:
            verdicts = loaded.grade([boxed(box) for _, box in pairs], [gold for gold, _ in pairs])
        found = dict(zip(pairs, verdicts, strict=True))
        assert [found[each].correct for each in healthy] == [True] * len(healthy)
        assert [found[each].correct for each in hostile] == [None, False, False]
    finally:
        for each in burners:
            each.kill()
            each.join()


def _burn() -> None:
    while True:
        pass


def test_repeat_offenders_get_the_full_time_seldom() -> None:
    offenders = [GradingJob("x", f"{SLOW}+{n}") for n in range(40)]
    others = [GradingJob(f"x+{n}", SLOW) for n in range(3)]
    assert len(chances([*offenders, *others])) == CHANCES_PER_GOLD + len(others)
    assert len(chances([GradingJob(f"x+{n}", SLOW) for n in range(40)])) < 40


@pytest.mark.parametrize("box", ["1+" * 1200 + "1", "{" * 60 + "1" + "}" * 60])
def test_a_box_out_of_bounds_is_wrong_without_a_worker(box: str) -> None:
    before = multiprocessing.active_children()
    with Grader() as lazy:
        assert lazy.grade([boxed(box)], ["5"]) == [Verdict(False, True, "over bounds")]
        assert lazy.grade([boxed(box)], [box])[0].correct is True
        assert set(multiprocessing.active_children()) <= set(before)


def test_unevaluated_answers_are_paid_only_on_demand_and_lenient_knows_their_value() -> None:
    with Grader(workers=1) as strict, Grader(workers=1, pay_unevaluated=True) as paying:
        box = [boxed("9+4")]
        assert strict.grade(box, ["13"]) == [Verdict(False, True, "unevaluated")]
        assert strict.grade(box, ["13"], lenient=True)[0].correct is True
        assert paying.grade(box, ["13"]) == [Verdict(True, True, "unevaluated")]
        assert paying.grade(box, ["14"])[0].correct is False


def test_rewards_pay_no_unevaluated_answer_and_say_how_many_there_were() -> None:
    rewards, logged = score(
        Accuracy(), [completion(1, "7"), completion(1, "n+7-7"), completion(1, "3+4")], ["7"] * 3, 3
    )
    assert rewards == [1.0, 0.0, 0.0]
    assert logged["grading/unevaluated_share"] == pytest.approx(1 / 3)
    assert logged["grading/timeout_share"] == logged["grading/costly_share"] == 0


def test_a_formula_of_the_question_handed_back_is_not_paid() -> None:
    question = "Simplify $-10 - 4(n-5)$ and write the result as a polynomial."
    boxes = [boxed(each) for each in ("-10-4(n-5)", "y = -10 - 4(n - 5)", "10-4n", "-4n+10")]
    with Grader(workers=1) as grader:
        golds = ["10-4n"] * 4
        verdicts = grader.grade(boxes, golds, questions=[question] * 4)
        assert [each.correct for each in verdicts] == [False, False, True, True]
        assert [each.reason for each in verdicts[:2]] == ["unevaluated"] * 2
        assert [each.correct for each in grader.grade(boxes, golds)] == [True] * 4
        own = grader.grade([boxed("x+1")], ["x+1"], questions=["Is it x+1 or x-1?"])
        assert own[0].correct is True
