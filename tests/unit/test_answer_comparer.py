r"""Whether an exit changed the answer: by boxes with math-verify, by words, or not at all."""

import asyncio
import time

import pytest

from service.savings.answer_comparer import (
    SECONDS,
    SHORT_WORDS,
    Agreement,
    AnswerComparer,
    compare_texts,
)

CASES: list[tuple[str, str, Agreement | None]] = [
    (r"\boxed{7}", r"It is \boxed{7}.", "agreed"),
    (r"\boxed{0.5}", r"\boxed{\frac{1}{2}}", "agreed"),
    (r"\boxed{7}", "It is 7.", "differed"),
    (r"\boxed{x+1}", r"\boxed{1+x}", None),
    (r"\boxed{" + "1+" * 2000 + "1}", r"\boxed{2001}", "unjudged"),
    ("Paris", "  paris\n", "agreed"),
    ("Paris", "London", "differed"),
    ("word " * (SHORT_WORDS + 1), "London", "unjudged"),
    ("word " * 50, "Word " * 50, "agreed"),
]


@pytest.mark.parametrize(("left", "right", "expected"), CASES)
def test_what_needs_no_mathematics(left: str, right: str, expected: Agreement | None) -> None:
    assert compare_texts(left, right) == compare_texts(right, left) == expected


def test_formulas_are_compared_by_math_verify_and_hostile_ones_cost_seconds() -> None:
    async def judged() -> list[Agreement]:
        judges = AnswerComparer()
        try:
            return [
                await judges.compare(rf"\boxed{{{left}}}", rf"\boxed{{{right}}}")
                for left, right in (
                    ("x+1", "1+x"),
                    ("x+1", "x+2"),
                    (r"\sqrt{8}", r"2\sqrt{2}"),
                    ("9^{9^{9^{9^9}}}", "x"),
                    ("x+3", "3+x"),  # after the one before ended the process, or did not
                )
            ]
        finally:
            judges.close()

    started = time.monotonic()
    found = asyncio.run(judged())
    assert found[:3] == ["agreed", "differed", "agreed"]
    assert found[3] in ("differed", "unjudged")
    assert found[4] == "agreed"
    assert time.monotonic() - started < 60 + SECONDS  # it would take for ever
