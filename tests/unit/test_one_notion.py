"""Grader, policy `consistency` and quality guard say the same of two answers."""

import pytest

from service.savings.answer_comparer import compare_texts
from stepgrpo_core import ExitSettings
from stepgrpo_core.policies.base import Boundary, ExitReason
from stepgrpo_core.policies.consistency import ConsistencyPolicy
from stepgrpo_core.policies.probes import InducedAnswer
from training.grading import Grader

PAIRS = [
    ("5 1/2", "11/2", True),
    ("5 1/2", "51/2", False),
    (r"1{,}250", "1250", True),
    ("4 7", "47", False),
    (r"30~\text{cm}", "30", True),
    (r"\text{2:30 PM}", "14:30", True),
    ("0.00000012", "0.00000034", False),
    ("2516_7", "2516_8", False),
    (r"\{1,2\}", "(1,2)", False),
    ("90°", r"90^\circ", True),
    ("77.", "77", True),
]


@pytest.mark.parametrize(("one", "other", "same"), PAIRS)
def test_the_three_agree(one: str, other: str, same: bool) -> None:
    with Grader(workers=1) as grader:
        graded = grader.grade([f"\\boxed{{{other}}}"], [one])[0].correct
    guarded = compare_texts(f"\\boxed{{{one}}}", f"\\boxed{{{other}}}")
    assert graded is same
    assert guarded == ("agreed" if same else "differed")
    assert exits_on(one, other) is same


def exits_on(one: str, other: str) -> bool:
    settings = ExitSettings(policy="consistency", consistency="max")
    policy = ConsistencyPolicy(settings)
    answers = [InducedAnswer((), (), False, f"{{{each}}}") for each in (one, other)]
    verdicts = [policy.decide(Boundary(64, 1, 64), answer) for answer in answers]
    return verdicts[-1].reason is ExitReason.CONSISTENT
