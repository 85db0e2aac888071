"""The step-aware relative reward against values worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_core import REWARDS, InvalidGroup, InvalidSetting, count_steps, step_aware_rewards
from tests.cases import STEP_CASES


def test_by_hand() -> None:
    # mu = (2 + 4) / 2 = 3 over the correct ones; the wrong one's k of 9 does not count.
    rewards = step_aware_rewards([True, True, False], [True, False, True], [2, 4, 9])
    expected = [
        0.9 * (1 - 0.5 * math.tanh(-1 / 3)) + 0.1,
        0.9 * (1 - 0.5 * math.tanh(1 / 3)),
        0.1,
    ]
    assert rewards == pytest.approx(expected)


def test_the_baseline_is_the_mean_of_the_correct_ones_only() -> None:
    alone = step_aware_rewards([True, True], [True, True], [2, 4])
    with_wrong = step_aware_rewards([True, True, False], [True] * 3, [2, 4, 100])
    assert with_wrong[:2] == alone
    over_all = step_aware_rewards([True, True, False], [True] * 3, [2, 4, 100], baseline="all")
    assert over_all[0] == pytest.approx(
        0.9 * (1 - 0.5 * math.tanh((2 - 106 / 3) / (106 / 3))) + 0.1
    )


def test_no_correct_completion_leaves_the_format_reward() -> None:
    assert step_aware_rewards([False, False], [True, False], [1, 9]) == pytest.approx([0.1, 0.0])


def test_without_step_reward_only_correctness_and_format_pay() -> None:
    assert step_aware_rewards([True, True], [True, True], [1, 9], beta=0) == pytest.approx([1, 1])


def test_an_unscored_completion_gets_none_and_counts_nowhere() -> None:
    rewards = step_aware_rewards([True, None, True], [True] * 3, [2, 50, 4], baseline="all")
    assert rewards[1] is None
    assert rewards[::2] == step_aware_rewards([True, True], [True, True], [2, 4])
    assert step_aware_rewards([None], [False], [1]) == [None]


def test_groups_do_not_see_each_other() -> None:
    first = ([True, False], [True, True], [2, 3])
    second = ([True, True], [True, True], [7, 9])
    assert [step_aware_rewards(*g) for g in (first, second)] == [
        step_aware_rewards(*g) for g in (first, second)
    ]
    assert step_aware_rewards(*first) != step_aware_rewards(*second)


@pytest.mark.parametrize("case", STEP_CASES, ids=lambda case: repr(case.text))
def test_the_segmenters_count_is_the_rewards_k(case) -> None:
    k = count_steps(case.text, case.markers)
    assert step_aware_rewards([True], [True], [k]) == pytest.approx([1.0])  # k is mu


@given(
    st.lists(
        st.tuples(st.sampled_from([True, False, None]), st.booleans(), st.integers(1, 500)),
        min_size=1,
        max_size=8,
    ),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_fewer_steps_never_pay_less_and_all_is_bounded(group, alpha, beta) -> None:
    correct, formatted, steps = (list(column) for column in zip(*group, strict=True))
    rewards = step_aware_rewards(correct, formatted, steps, alpha=alpha, beta=beta)
    assert all((r is None) == (acc is None) for r, acc in zip(rewards, correct, strict=True))
    assert all(r is None or 0 <= r <= alpha * (1 + beta) + 1 for r in rewards)
    right = [
        (k, r)
        for k, r, acc, box in zip(steps, rewards, correct, formatted, strict=True)
        if acc and box
    ]
    assert all(r >= s for k, r in right for m, s in right if k < m)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), "empty"),
        (([True], [True], [1, 2]), "have 1, 1 and 2 entries"),
        (([True], [True], [0]), r"steps\[0\]=0"),
        (([True], [True], [math.nan]), r"steps\[0\]=nan"),
        (([True, 0.5], [True] * 2, [1, 1]), r"correct\[1\]=0.5"),
    ],
)
def test_what_is_not_one_group_is_refused(arguments, message) -> None:
    with pytest.raises(InvalidGroup, match=message):
        step_aware_rewards(*arguments)


@pytest.mark.parametrize("setting", [{"alpha": 1.1}, {"beta": math.nan}, {"baseline": "wrong"}])
def test_settings_out_of_range_are_refused(setting) -> None:
    with pytest.raises(InvalidSetting, match=next(iter(setting))):
        step_aware_rewards([True], [True], [1], **setting)


def test_the_registry_names_it() -> None:
    assert REWARDS["step-aware"] is step_aware_rewards
