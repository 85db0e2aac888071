r"""The answer stands after the thinking, in the last \boxed{} whose braces balance."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_core import answer_text, final_answer, last_box


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{5}", "5"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {x}", "x"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{}", ""),
        (r"\boxed{5} \boxed{6", None),  # cut short: the earlier one is not the last
        (r"\boxed{5} \boxed{", None),
        (r"\boxed{\boxed{6}", "6"),
        (r"}} \boxed{7} }", "7"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"{a} \boxed 5", None),
        (r"\boxed{5", None),
        ("", None),
    ],
)
def test_last_box(text: str, expected: str | None) -> None:
    assert last_box(text) == expected


@pytest.mark.parametrize(
    ("completion", "thinking_open", "expected"),
    [
        (r"<think>\boxed{1}</think>\boxed{2}", False, "2"),
        (r"<think>\boxed{1}", False, None),
        (r"\boxed{1}", True, None),
        (r"\boxed{1}</think>\boxed{2}", True, "2"),
        (r"\boxed{1}", False, "1"),
        (r"<think>a</think>\boxed{1}</think>", False, "1"),  # the first end wins
        (r"<think>\boxed{1}</think>no box", False, None),
    ],
)
def test_final_answer(completion: str, thinking_open: bool, expected: str | None) -> None:
    assert final_answer(completion, thinking_open=thinking_open) == expected


def test_answer_text_keeps_a_second_end() -> None:
    assert answer_text("<think>a</think>b</think>c") == "b</think>c"


@given(st.text(alphabet=r"\boxed{} "))
def test_any_text_is_taken(text: str) -> None:
    box = last_box(text)
    assert box is None or box in text


def test_unbalanced_text_takes_linear_time() -> None:
    def seconds(count: int) -> float:
        text = r"\boxed{" * count
        started = time.process_time()
        assert last_box(text) is None
        return time.process_time() - started

    seconds(1_000)
    assert seconds(200_000) < 60 * max(min(seconds(10_000) for _ in range(3)), 1e-4)
