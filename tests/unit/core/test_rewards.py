"""What holds for every reward, the registry, and the columns they are given."""

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_core import REWARDS, Group, InvalidGroup, InvalidSetting, build_reward
from stepgrpo_core.docstrings import field_docs
from stepgrpo_core.rewards import Reward, Rewards, per_batch, per_group
from tests.support.training.groups import group, groups, numbers

every_reward = pytest.mark.parametrize("reward", list(map(build_reward, REWARDS)), ids=REWARDS)
BY_BATCH = {"grpo-lambda", "laser-d", "laser-de"}
"""Rewards of a group that depend on the batch's other groups."""
BATCHES = st.lists(groups(), max_size=5)


def columns_of(source: Group) -> list[list[Any]]:
    return [list(column) for column in dataclasses.astuple(source)]


def rearranged(source: Group, order: Sequence[int]) -> Group:
    columns = columns_of(source)
    return Group(*([column[index] for index in order] for column in columns))


# Not gfpo, which filters (its own test).
@pytest.mark.parametrize("name", [name for name in REWARDS if name != "gfpo"])
@given(batch=BATCHES)
def test_each_completion_gets_one_reward_and_each_unscored_one_none(
    name: str, batch: list[Group]
) -> None:
    rewards = build_reward(name)(batch)
    for each, row in zip(batch, rewards, strict=True):
        assert [reward is None for reward in row] == [acc is None for acc in each.correct]
        assert all(reward is None or math.isfinite(reward) for reward in row)


def with_unscored(source: Group, place: int, tokens: int) -> Group:
    extra: list[list[Any]] = [[None], [False], [99], [tokens], [False]]
    pairs = zip(columns_of(source), extra, strict=True)
    return Group(*([*column[:place], *new, *column[place:]] for column, new in pairs))


@every_reward
@given(batch=BATCHES, data=st.data())
def test_an_unscored_completion_changes_nobody_elses_reward(
    reward: Reward, batch: list[Group], data: st.DataObject
) -> None:
    places = [data.draw(st.integers(0, len(each.correct))) for each in batch]
    tokens = data.draw(st.sampled_from([0, 1_000_000]))
    more = [with_unscored(each, p, tokens) for each, p in zip(batch, places, strict=True)]
    expected = [[*r[:p], None, *r[p:]] for r, p in zip(reward(batch), places, strict=True)]
    assert reward([group("??"), *more]) == [[None, None], *expected]


@every_reward
@given(batch=BATCHES, data=st.data())
def test_the_order_within_a_group_says_nothing(
    reward: Reward, batch: list[Group], data: st.DataObject
) -> None:
    orders = [data.draw(st.permutations(range(len(each.correct)))) for each in batch]
    mixed = reward([rearranged(each, o) for each, o in zip(batch, orders, strict=True)])
    rows = zip(reward(batch), orders, strict=True)
    assert mixed == [[row[index] for index in order] for row, order in rows]


@pytest.mark.parametrize("name", [name for name in REWARDS if name not in BY_BATCH])
@given(batch=BATCHES)
def test_groups_do_not_see_each_other(name: str, batch: list[Group]) -> None:
    reward = build_reward(name)
    assert reward(batch) == [reward([each])[0] for each in batch]


# Not hard-limit, l1-max and sop, where a long correct one gets 0, not gfpo, which filters, and not
# shorterbetter (its own test).
@pytest.mark.parametrize(
    "name",
    [
        *("accuracy", "alp", "gr3", "grpo-lambda", "kimi", "laser", "laser-d", "laser-de", "lp"),
        *("s-grpo", "step-aware"),
    ],
)
@given(batch=st.lists(groups(letters="+-"), max_size=4))
def test_correct_always_beats_wrong(name: str, batch: list[Group]) -> None:
    for each, rewards in zip(batch, build_reward(name)(batch), strict=True):
        row = numbers(rewards)
        right = [reward for acc, reward in zip(each.correct, row, strict=True) if acc]
        wrong = [reward for acc, reward in zip(each.correct, row, strict=True) if not acc]
        assert not right or not wrong or min(right) > max(wrong)


# Not hard-limit, where the cut one of two gets 0, not gfpo, which filters, and not step-aware,
# which counts steps.
@pytest.mark.parametrize(
    "name", [name for name in REWARDS if name not in {"gfpo", "hard-limit", "step-aware"}]
)
@given(batch=st.lists(groups(letters="+"), max_size=4))
def test_of_two_correct_completions_the_shorter_never_gets_less(
    name: str, batch: list[Group]
) -> None:
    for each, rewards in zip(batch, build_reward(name)(batch), strict=True):
        row = numbers(rewards)
        by_length = [reward for _, reward in sorted(zip(each.tokens, row, strict=True))]
        assert by_length == sorted(row, reverse=True)  # so equal lengths get equal rewards


@every_reward
def test_each_names_its_paper_and_describes_its_constants(reward: Reward) -> None:
    kind = type(reward)
    constants = {field.name for field in dataclasses.fields(kind)}
    assert re.search(r"arXiv \d{4}\.\d{5}", kind.source)
    assert set(kind.not_from_paper) <= constants
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(kind))
    assert constants <= field_docs(kind).keys()


@dataclass(frozen=True, slots=True)
class Shortest:
    """1 for the shortest correct completion of the group."""

    bonus: float = 1.0
    """What it pays."""

    source: ClassVar[str] = "an example (arXiv 0000.00000)"
    not_from_paper: ClassVar[tuple[str, ...]] = ("bonus",)

    def __call__(self, batch: Sequence[Group]) -> Rewards:
        return per_group(batch, self._pay)

    def _pay(self, each: Group) -> list[float]:
        best = min(length for acc, length in zip(each.correct, each.tokens, strict=True) if acc)
        return [self.bonus * (length == best) for length in each.tokens]


def test_one_is_added_as_the_package_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REWARDS, "shortest", Shortest)
    reward = build_reward("shortest", bonus=2.0)
    assert reward([group("+?+", tokens=[9, 1, 8])]) == [[0.0, None, 2.0]]


def test_unknown_names_and_constants_name_the_known_ones() -> None:
    with pytest.raises(InvalidSetting, match=r"reward='step_aware'.*did you mean 'step-aware'"):
        build_reward("step_aware")
    with pytest.raises(InvalidSetting, match=r"gamma=1.*step-aware takes alpha, beta, baseline"):
        build_reward("step-aware", gamma=1)
    with pytest.raises(InvalidSetting, match=r"alpha=1.*accuracy takes no constants"):
        build_reward("accuracy", alpha=1)


@pytest.mark.parametrize(
    ("name", "constant", "value"),
    [
        ("step-aware", "alpha", 1.1),
        ("step-aware", "beta", math.nan),
        ("step-aware", "baseline", "wrong"),
        ("lp", "alpha", -0.1),
        ("lp", "alpha", "0.1"),
        ("sop", "limit", 0),
        ("sop", "ramp", 0),
        ("sop", "ramp", 20_481),
        ("grpo-lambda", "top_fraction", 1.1),
        ("grpo-lambda", "alpha", 2),
        ("kimi", "weight", 1.5),
        ("shorterbetter", "alpha", -1),
        ("shorterbetter", "beta", math.inf),
        ("laser", "alpha", -1),
        ("laser", "target", 0),
        ("hard-limit", "limit", 0),
        ("s-grpo", "decay", 1.1),
        ("alp", "beta", -1e-7),
        ("gfpo", "keep", 1),
        ("gfpo", "metric", "longest"),
        ("gr3", "alpha", -0.1),
        ("l1-max", "alpha", -0.1),
        ("l1-max", "delta", 1.1),
        ("l1-max", "target", 0),
        ("laser-d", "alpha", -0.1),
        ("laser-d", "shortest", 0),
        ("laser-d", "longest", 4_095),
        ("laser-de", "interval", 0),
    ],
)
def test_constants_out_of_range_name_key_value_and_remedy(
    name: str, constant: str, value: Any
) -> None:
    with pytest.raises(InvalidSetting, match=f"{constant}=.*use ") as caught:
        build_reward(name, **{constant: value})
    assert (caught.value.name, caught.value.value) == (constant, pytest.approx(value, nan_ok=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": [True, 0.5]}, r"correct\[1\]=0.5 is not True, False or None"),
        ({"formatted": [True, None]}, r"formatted\[1\]=None is not True or False"),
        ({"finished": ["no", True]}, r"finished\[0\]='no' is not True or False"),
        ({"steps": [1, 0]}, r"steps\[1\]=0 is not a count of at least 1"),
        ({"steps": [math.nan, 1]}, r"steps\[0\]=nan"),
        ({"tokens": [-1, 1]}, r"tokens\[0\]=-1 is not a count of at least 0"),
        ({"tokens": [1.5, 1]}, r"tokens\[0\]=1.5"),
        ({"steps": [1, 2, 3]}, "different lengths .*correct 2, formatted 2, steps 3"),
        ({field.name: [] for field in dataclasses.fields(Group)}, "empty"),
    ],
)
def test_what_is_not_one_group_is_refused(change: dict[str, Any], message: str) -> None:
    columns = dataclasses.asdict(group("+-")) | change
    with pytest.raises(InvalidGroup, match=message):
        Group(**columns)


def test_a_rule_that_loses_a_completion_or_a_group_is_caught() -> None:
    with pytest.raises(AssertionError, match="one reward for each"):
        per_group([group("+-")], lambda _: [1.0])
    with pytest.raises(ValueError, match="shorter"):
        per_batch([group("+-")], lambda _: [])
