"""The confidence of a trial answer, and what it is without evidence."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_core import answer_confidence, ended_or_zero
from stepgrpo_core.confidence import Mean

LOGS = [math.log(p) for p in (0.01, 0.9, 0.8)]


def test_means_by_hand() -> None:
    assert answer_confidence(LOGS) == pytest.approx(math.sqrt(0.72))
    assert answer_confidence(LOGS, mean="arithmetic") == pytest.approx(0.85)
    assert answer_confidence(LOGS, mean="minimum") == pytest.approx(0.8)


def test_the_first_token_is_skipped_as_in_the_authors_code() -> None:
    assert answer_confidence(LOGS, skip_first=False) == pytest.approx((0.01 * 0.72) ** (1 / 3))
    assert answer_confidence([-math.inf, 0.0]) == 1.0


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [
        ([], 0.0),
        ([-0.1], 0.0),  # one token, skipped: DEER divides by zero here
        ([-0.1, None], 0.0),
        ([-0.1, math.nan, -0.1], 0.0),
        ([-0.1, -math.inf], 0.0),
        ([-0.1, -1.7e308, -1.7e308], 0.0),  # their sum is no float
        ([math.nan, 0.0], 1.0),  # the skipped token does not count
        ([-0.1, 1e-6], 1.0),  # rounding above zero
    ],
)
def test_without_evidence_it_is_zero_and_never_raises(
    logprobs: list[float | None], expected: float
) -> None:
    assert answer_confidence(logprobs) == expected


@given(
    st.lists(st.none() | st.floats(), max_size=8),
    st.sampled_from(["geometric", "arithmetic", "minimum"]),
    st.booleans(),
)
def test_always_between_zero_and_one(
    logprobs: list[float | None], mean: Mean, skip_first: bool
) -> None:
    assert 0.0 <= answer_confidence(logprobs, mean=mean, skip_first=skip_first) <= 1.0


def test_a_trial_that_does_not_end_its_thinking_has_none() -> None:
    assert ended_or_zero(0.99, ended=False) == 0.0
    assert ended_or_zero(0.99, ended=True) == 0.99
