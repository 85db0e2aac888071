"""The interface of rewards, their input, and shared helpers."""

import abc
import math
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, fields
from numbers import Integral
from typing import Any, ClassVar, Protocol

from stepgrpo_core.errors import InvalidGroup, InvalidSetting

__all__ = [
    "Group",
    "GroupReward",
    "Reward",
    "Rewards",
    "check_range",
    "per_batch",
    "per_group",
]

Rewards = list[list[float | None]]
"""One list per group, one reward per completion; None leaves it out of training, because it could
not be scored or because the method filters it."""


@dataclass(frozen=True, slots=True)
class Group:
    """The completions of one prompt as columns, each of shape (G,).

    Raises InvalidGroup if the columns differ in length, are empty or contain invalid values.
    """

    correct: Sequence[bool | None]
    """True if the answer is correct; None if grading failed."""
    formatted: Sequence[bool]
    """True if the answer has a box."""
    steps: Sequence[int]
    """Number of steps k by `count_steps`, at least 1."""
    tokens: Sequence[int]
    """Completion tokens L."""
    finished: Sequence[bool]
    """False if the completion was truncated by the token limit."""

    def __post_init__(self) -> None:
        sizes = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(sizes.values())) > 1:
            entries = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise InvalidGroup(
                f"the columns have different lengths ({entries}); "
                "pass one entry per completion in each"
            )
        if not self.correct:
            raise InvalidGroup("the group is empty; pass at least one completion")
        _check_column("correct", self.correct, lambda v: v in (0, 1, None), "True, False or None")
        _check_column("formatted", self.formatted, lambda v: v in (0, 1), "True or False")
        _check_column("finished", self.finished, lambda v: v in (0, 1), "True or False")
        _check_column("steps", self.steps, lambda v: _count(v, 1), "a count of at least 1")
        _check_column("tokens", self.tokens, lambda v: _count(v, 0), "a count of at least 0")


class Reward(Protocol):
    """Scores a batch. Implementations are frozen dataclasses whose fields are their constants."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    source: ClassVar[str]
    """Paper, in one line."""
    not_from_paper: ClassVar[tuple[str, ...]]
    """Constants whose default is not from the paper."""

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """Return the rewards of every group of the batch, over all ranks, in order."""


class GroupReward(abc.ABC):
    """Base of the rewards that score each group separately."""

    __slots__ = ()
    not_from_paper: ClassVar[tuple[str, ...]] = ()

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """Return the rewards of every group."""
        return per_group(groups, self.rewards_of)

    @abc.abstractmethod
    def rewards_of(self, group: Group) -> Sequence[float | None]:
        """Return the (G,) rewards of a group of scored completions."""


def per_group(groups: Sequence[Group], rule: Callable[[Group], Sequence[float | None]]) -> Rewards:
    """Apply `per_batch` with a rule that scores one group at a time."""
    return per_batch(groups, lambda scored: [rule(group) for group in scored])


def per_batch(
    groups: Sequence[Group], rule: Callable[[Sequence[Group]], Sequence[Sequence[float | None]]]
) -> Rewards:
    """Return rewards by `rule`, which never sees unscored completions.

    The rule receives the groups without unscored completions (empty groups are left out) and
    returns one reward per remaining completion, None to leave it out of training.
    """
    kept = [index for index, group in enumerate(groups) if set(group.correct) != {None}]
    rewards = dict(zip(kept, rule([_scored(groups[index]) for index in kept]), strict=True))
    return [_restored(group, rewards.get(index, [])) for index, group in enumerate(groups)]


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise InvalidSetting unless `value` is finite and lies in [low, high]."""
    number = isinstance(value, int | float) and math.isfinite(value)
    if not (number and low <= value <= high):
        upto = f"from {low} to {high}" if math.isfinite(high) else f"of at least {low}"
        raise InvalidSetting(name, value, f"use a number {upto}")


def _scored(group: Group) -> Group:
    """Return the group without its unscored completions."""
    places = [index for index, acc in enumerate(group.correct) if acc is not None]
    columns = (getattr(group, field.name) for field in fields(group))
    return Group(*([column[index] for index in places] for column in columns))


def _restored(group: Group, rewards: Sequence[float | None]) -> list[float | None]:
    """Return the rewards at the positions of scored completions, None at the others."""
    assert len(rewards) == sum(acc is not None for acc in group.correct), "one reward for each"
    left = iter(rewards)
    return [None if acc is None else next(left) for acc in group.correct]


def _check_column(
    name: str, column: Sequence[Any], valid: Callable[[Any], bool], wanted: str
) -> None:
    for index, value in enumerate(column):
        if not valid(value):
            raise InvalidGroup(f"{name}[{index}]={value!r} is not {wanted}")


def _count(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and int(value) >= least
