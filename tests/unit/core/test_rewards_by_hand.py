"""Every reward against values worked out by hand."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_core import REWARDS, Group, StepAware, build_reward, count_steps
from tests.support.core.cases import STEP_CASES, StepCase
from tests.support.training.groups import group, groups, numbers


def pay(
    reward: str | tuple[str, dict[str, Any]], correct: str, **columns: Any
) -> list[float | None]:
    """Rewards of one group; `reward` may be (name, constants)."""
    name, constants = reward if isinstance(reward, tuple) else (reward, {})
    return build_reward(name, **constants)([group(correct, **columns)])[0]


def test_accuracy_is_one_or_zero() -> None:
    assert pay("accuracy", "+-?", tokens=[9, 1, 5]) == [1.0, 0.0, None]


def test_step_aware_by_hand() -> None:
    # mu = (2 + 4) / 2 = 3 over the correct ones; the wrong one's k of 9 does not count.
    rewards = pay("step-aware", "++-", steps=[2, 4, 9], formatted=[True, False, True])
    assert rewards == pytest.approx(
        [
            0.9 * (1 - 0.5 * math.tanh(-1 / 3)) + 0.1,
            0.9 * (1 - 0.5 * math.tanh(1 / 3)),
            0.1,
        ]
    )


def test_step_aware_baseline_is_the_mean_of_the_correct_ones_only() -> None:
    alone = pay("step-aware", "++", steps=[2, 4])
    assert pay("step-aware", "++-", steps=[2, 4, 100])[:2] == alone
    over_all = pay(("step-aware", {"baseline": "all"}), "++-", steps=[2, 4, 100])
    mu = (2 + 4 + 100) / 3
    assert over_all[0] == pytest.approx(0.9 * (1 - 0.5 * math.tanh((2 - mu) / mu)) + 0.1)


def test_step_aware_without_a_correct_completion_pays_format_only() -> None:
    assert pay("step-aware", "--", steps=[1, 9], formatted=[True, False]) == pytest.approx([0.1, 0])
    over_all = pay(("step-aware", {"baseline": "all"}), "--", steps=[1, 9])
    assert over_all == pytest.approx([0.1, 0.1])


def test_step_aware_with_equal_steps_or_one_correct_pays_the_plain_reward() -> None:
    assert pay("step-aware", "+++", steps=[3, 3, 3]) == pytest.approx([1.0, 1.0, 1.0])
    assert pay("step-aware", "+-", steps=[7, 1]) == pytest.approx([1.0, 0.1])


def test_step_aware_ablation_pays_no_steps() -> None:
    assert pay(("step-aware", {"beta": 0}), "++", steps=[1, 9]) == pytest.approx([1.0, 1.0])


@given(groups(letters="+-"), st.floats(0, 1), st.floats(0, 1))
def test_step_aware_pays_fewer_steps_never_less_and_is_bounded(
    each: Group, alpha: float, beta: float
) -> None:
    rewards = numbers(StepAware(alpha=alpha, beta=beta)([each])[0])
    assert all(0 <= reward <= alpha * (1 + beta) + 1 - alpha + 1e-9 for reward in rewards)
    columns = zip(each.steps, rewards, each.correct, each.formatted, strict=True)
    right = [(k, reward) for k, reward, acc, box in columns if acc and box]
    assert all(r >= s for k, r in right for m, s in right if k < m)


@pytest.mark.parametrize("case", STEP_CASES, ids=lambda case: repr(case.text))
def test_the_segmenters_count_is_the_rewards_k(case: StepCase) -> None:
    k = count_steps(case.text, case.markers)
    # Beside a completion of case.steps steps both are at mu only if the counts agree.
    assert pay("step-aware", "++", steps=[k, case.steps]) == pytest.approx([1.0, 1.0])


def test_lp_by_hand() -> None:
    # Correct lengths 100 and 300: mean 200, population std 100, so z = -1 and 1. 900 is wrong.
    low, high = 1 / (1 + math.exp(1)), 1 / (1 + math.exp(-1))
    rewards = pay(("lp", {"alpha": 0.4}), "++-", tokens=[100, 300, 900])
    assert rewards == pytest.approx([1 - 0.4 * low, 1 - 0.4 * high, 0])


def test_lp_divides_by_the_populations_std() -> None:
    # 10, 20, 60: mean 30, std sqrt((400 + 100 + 900) / 3) = sqrt(1400 / 3).
    z = (60 - 30) / math.sqrt(1400 / 3)
    rewards = pay("lp", "+++", tokens=[10, 20, 60])
    assert rewards[2] == pytest.approx(1 - 0.1 / (1 + math.exp(-z)))


def test_lp_without_spread_takes_half_of_alpha() -> None:
    assert pay("lp", "+-", tokens=[900, 10]) == pytest.approx([0.95, 0])
    assert pay("lp", "+++", tokens=[7, 7, 7]) == pytest.approx([0.95] * 3)
    assert pay("lp", "--", tokens=[1, 2]) == [0, 0]


def test_sop_by_hand() -> None:
    # The ramp begins at 100 - 20 = 80 tokens; at 90 it has (90 - 80) / 20 = 0.5, at 100 all of 1.
    reward = ("sop", {"limit": 100, "ramp": 20})
    tokens = [10, 80, 81, 90, 100, 5_000]
    assert pay(reward, "++++++", tokens=tokens) == pytest.approx([1, 1, 0.95, 0.5, 0, 0])
    assert pay(reward, "------", tokens=tokens) == pytest.approx([0, 0, -0.05, -0.5, -1, -1])


def test_sop_defaults_touch_nothing_below_16384_tokens() -> None:
    # 18 432 is the middle of 16 384 to 20 480.
    assert pay("sop", "+++", tokens=[16_384, 18_432, 20_480]) == pytest.approx([1, 0.5, 0])


def lambda_batch() -> list[Group]:
    """Shares of correct completions 1/2, 1, 1/2, 0; correct lengths 100 and 300 in each."""
    tokens = [100, 300, 50, 900]
    return [group(letters, tokens=tokens) for letters in ("++--", "++++", "++--", "----")]


def test_grpo_lambda_penalizes_length_in_the_top_groups_only() -> None:
    plain, all_right = build_reward("accuracy"), build_reward("lp", alpha=0.6)
    batch = lambda_batch()
    rewards = build_reward("grpo-lambda", top_fraction=0.25)(batch)  # one group of four
    assert rewards == [
        plain(batch)[0],
        all_right(batch)[1],
        plain(batch)[2],
        plain(batch)[3],
    ]
    # Group 1, by hand: lengths 100, 300, 50, 900; mean 337.5; squares sum to 456 875.
    z = (50 - 337.5) / math.sqrt(456_875 / 4)
    assert rewards[1][2] == pytest.approx(1 - 0.6 / (1 + math.exp(-z)))


def test_grpo_lambda_rounds_up_and_gives_ties_to_the_first() -> None:
    def penalized(top_fraction: float) -> list[int]:
        batch = lambda_batch()
        rewards = build_reward("grpo-lambda", top_fraction=top_fraction)(batch)
        plain = build_reward("accuracy")(batch)
        return [index for index in range(4) if rewards[index] != plain[index]]

    assert penalized(0) == []
    assert penalized(0.01) == [1]
    assert penalized(0.5) == [0, 1]  # group 0 before group 2
    assert penalized(0.51) == penalized(1) == [0, 1, 2]  # in group 3 there is nothing to penalize


def test_grpo_lambda_takes_seven_percent_of_a_hundred_as_seven() -> None:
    batch = [group("++", tokens=[1, 3]) for _ in range(100)]
    rewards = build_reward("grpo-lambda", top_fraction=0.07)(batch)
    assert math.ceil(0.07 * 100) == 8  # what rounding would have made of it
    assert sum(row != [1.0, 1.0] for row in rewards) == 7


def test_kimi_by_hand() -> None:
    # Lengths 100 to 500: l = 0.5 - (L - 100) / 400 = 0.5, 0.25, -0.25, -0.5.
    tokens = [100, 200, 400, 500]
    assert pay("kimi", "++++", tokens=tokens) == pytest.approx([1.5, 1.25, 0.75, 0.5])
    assert pay("kimi", "----", tokens=tokens) == pytest.approx([0, 0, -0.25, -0.5])
    assert pay("kimi", "-+-", tokens=[100, 200, 500]) == pytest.approx([0, 1.25, -0.5])
    halved = pay(("kimi", {"weight": 0.5}), "+--+", tokens=tokens)
    assert halved == pytest.approx([1.25, 0, -0.125, 0.75])


def test_kimi_pays_no_length_where_all_are_equal() -> None:
    assert pay("kimi", "+-", tokens=[70, 70]) == [1, 0]
    assert pay("kimi", "+", tokens=[70]) == [1]


def test_shorterbetter_by_hand() -> None:
    # The shortest correct one has 300 tokens: 0.5 - 0, 0.5 - 0.001 * 200, 0 - 0.001 * 100.
    assert pay("shorterbetter", "++-", tokens=[300, 500, 200]) == pytest.approx([0.5, 0.3, -0.1])


def test_shorterbetter_aims_at_the_mean_where_none_is_correct() -> None:
    # Mean 200: distances 100 and 100. The unscored one's 9 000 tokens do not count.
    assert pay("shorterbetter", "--", tokens=[100, 300]) == pytest.approx([-0.1, -0.1])
    unscored = pay("shorterbetter", "--?", tokens=[100, 300, 9_000])
    assert unscored[:2] == pytest.approx([-0.1, -0.1])


def test_shorterbetter_can_pay_wrong_more_than_correct() -> None:
    # 0.5 - 0.001 * 600 = -0.1 against 0 for the wrong one of the best length.
    rewards = pay("shorterbetter", "++-", tokens=[100, 700, 100])
    assert rewards == pytest.approx([0.5, -0.1, 0])


def test_laser_by_hand() -> None:
    assert pay("laser", "++-", tokens=[4_096, 4_097, 10]) == [1.5, 1.0, 0.0]
    assert pay(("laser", {"alpha": 0.2, "target": 9}), "++", tokens=[9, 10]) == [1.2, 1.0]


def test_hard_limit_pays_correct_finished_and_short_only() -> None:
    rewards = pay(
        "hard-limit",
        "+++-",
        tokens=[4_000, 4_001, 10, 10],
        finished=[True, True, False, True],
    )
    assert rewards == [1.0, 0.0, 0.0, 0.0]


def test_s_grpo_halves_from_one_correct_exit_to_the_next() -> None:
    # From the left: 10 wrong, 20 first, 30 wrong, 40 second, 50 third.
    rewards = pay("s-grpo", "+-+-+", tokens=[40, 10, 20, 30, 50])
    assert rewards == [0.5, 0.0, 1.0, 0.0, 0.25]
    assert pay(("s-grpo", {"decay": 0.1}), "++", tokens=[1, 2]) == pytest.approx([1, 0.1])


def test_s_grpo_gives_equal_exits_the_higher_reward() -> None:
    # Both of 10 tokens are first, so the one of 20 is third.
    assert pay("s-grpo", "+++", tokens=[10, 20, 10]) == [1.0, 0.25, 1.0]
    assert pay("s-grpo", "--", tokens=[1, 2]) == [0.0, 0.0]


def test_gr3_divides_by_one_plus_the_relative_length() -> None:
    # Mean over all four: (100 + 300 + 500 + 300) / 4 = 300; so 1 / (1 + 0.33 / 3) and so on.
    rewards = pay("gr3", "+++-", tokens=[100, 300, 500, 300])
    assert rewards == pytest.approx([1 / 1.11, 1 / 1.33, 1 / 1.55, 0])
    assert pay(("gr3", {"alpha": 1.0}), "++", tokens=[0, 0]) == [1, 1]


def test_alp_takes_more_per_token_from_easy_prompts() -> None:
    reward = ("alp", {"beta": 0.001})
    # Half are right: 0.001 * 100 * 0.5 = 0.05, and for the wrong one of 200 tokens 0.1.
    assert pay(reward, "+-", tokens=[100, 200]) == pytest.approx([0.95, -0.1])
    assert pay(reward, "++", tokens=[100, 200]) == pytest.approx([0.9, 0.8])
    # None of four is right: the floor is 1 / 4. The unscored one is no part of the four.
    rewards = pay(reward, "----?", tokens=[100, 200, 0, 0, 9])
    assert rewards == [pytest.approx(-0.025), pytest.approx(-0.05), 0, 0, None]


def test_l1_max_fades_around_the_target() -> None:
    # At the target 0.5; 0.0003 per token; from 1 667 tokens below all of 1, as far above nothing.
    tokens = [2_048, 1_048, 3_048, 100, 5_000]
    assert pay("l1-max", "+++++", tokens=tokens) == pytest.approx([0.5, 0.8, 0.2, 1, 0])
    assert pay("l1-max", "-----", tokens=tokens) == [0] * 5
    assert pay(("l1-max", {"target": 10, "alpha": 0.1}), "++", tokens=[8, 13]) == pytest.approx(
        [0.7, 0.2]
    )


LASER_D = {"shortest": 100, "longest": 300, "interval": 100}


def test_laser_d_sets_a_target_for_each_difficulty() -> None:
    easy = group("+++-", tokens=[100, 200, 250, 400])  # 3 of 4: at least 4 * 2 // 3 = 2 are right
    medium = group("++--", tokens=[150, 350, 100, 90])  # at least 4 // 3 = 1 is right
    hard = group("+---", tokens=[90, 10, 10, 10])
    rewards = build_reward("laser-d", **LASER_D)([easy, medium, hard])
    # Easy: 1 of 4 within 100, times 2 is 0.5; 2 of 4 within 200, times 2 is 1: target 200.
    assert rewards[0] == [1.5, 1.5, 1.0, 0.0]
    # Medium: 2, 3 and 3 of 4 within 100, 200 and 300, times 1 is below 1: no target binds.
    assert rewards[1] == [1.5, 1.5, 0.0, 0.0]
    assert rewards[2] == [1.5, 0.0, 0.0, 0.0]  # hard: all 4 within 100


def test_laser_d_counts_lengths_over_all_groups_of_a_difficulty() -> None:
    alone = group("+++", tokens=[150, 150, 150])  # easy, m = 2; none within 100: target 200
    short = group("+++", tokens=[10, 10, 10])  # with it 3 of 6 within 100, times 2 is 1
    assert build_reward("laser-d", **LASER_D)([alone])[0] == [1.5] * 3
    assert build_reward("laser-d", **LASER_D)([alone, short])[0] == [1.0] * 3


def test_laser_d_takes_its_smallest_target_and_then_multiples_of_the_interval() -> None:
    settings = {"shortest": 30, "longest": 200, "interval": 100}
    assert pay(("laser-d", settings), "++", tokens=[31, 99]) == [1.5, 1.5]  # 30 holds none; 100
    assert pay(("laser-d", settings), "++", tokens=[30, 99]) == [1.0 + 0.5, 1.0 + 0.5]
    assert pay(("laser-d", settings), "+++", tokens=[30, 30, 99]) == [1.5, 1.5, 1.0]


def test_laser_de_pays_wrong_completions_beyond_the_target_that_finished() -> None:
    rewards = pay(
        ("laser-de", LASER_D),
        "++++--",
        tokens=[90, 90, 90, 300, 300, 300],
        finished=[True, True, True, True, True, False],
    )
    # 4 of 6 are right: easy, m = 4; 3 of 6 within 100, times 4 is 2: target 100.
    assert rewards == [1.5, 1.5, 1.5, 1.0, 0.5, 0.0]
    assert pay(("laser-de", LASER_D), "+++-", tokens=[90, 90, 90, 100])[3] == 0.0


def test_gfpo_pays_the_shortest_and_leaves_the_others_out() -> None:
    reward = ("gfpo", {"keep": 2})
    assert pay(reward, "+-++", tokens=[30, 20, 40, 10]) == [None, 0, None, 1]
    assert pay(reward, "+-++", tokens=[20, 20, 40, 10]) == [1, 0, None, 1]  # a tie stays
    assert pay(reward, "+?-", tokens=[30, 1, 20]) == [1, None, 0]  # unscored ones take no place
    assert pay(("gfpo", {"keep": 8}), "+-", tokens=[30, 20]) == [1, 0]


def test_gfpo_can_keep_the_most_reward_per_token() -> None:
    reward = ("gfpo", {"keep": 2, "metric": "efficiency"})
    # 1/30, 0, 1/40, 1/10: the wrong one of 5 tokens has none.
    assert pay(reward, "+-++", tokens=[30, 5, 40, 10]) == [1, None, None, 1]
    assert pay(reward, "+---", tokens=[30, 5, 40, 10]) == [1, 0, 0, 0]  # all ties at 0


@pytest.mark.parametrize("name", REWARDS)
def test_an_empty_batch_has_no_rewards(name: str) -> None:
    assert build_reward(name)([]) == []
