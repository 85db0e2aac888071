"""Groups of completions for tests of rewards, written as text or drawn at random."""

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st

from stepgrpo_core import Group

T = TypeVar("T")
OUTCOMES = {"+": True, "-": False, "?": None}


def group(
    correct: str,
    *,
    tokens: Sequence[int] = (),
    steps: Sequence[int] = (),
    formatted: Sequence[bool] = (),
    finished: Sequence[bool] = (),
) -> Group:
    """Return a group of one completion per letter: + correct, - wrong, ? could not be scored."""
    size = len(correct)
    return Group(
        correct=[OUTCOMES[letter] for letter in correct],
        formatted=formatted or [True] * size,
        steps=steps or [1] * size,
        tokens=tokens or [100] * size,
        finished=finished or [True] * size,
    )


@st.composite
def groups(draw: st.DrawFn, *, letters: str = "+-?") -> Group:
    """Draw one to eight completions with few different lengths, so that ties occur."""
    correct = draw(st.text(letters, min_size=1, max_size=8))

    def column(values: st.SearchStrategy[T]) -> list[T]:
        return draw(st.lists(values, min_size=len(correct), max_size=len(correct)))

    return group(
        correct,
        tokens=column(st.sampled_from([0, 1, 50, 500, 4_000, 4_096, 4_097, 18_000, 30_000])),
        steps=column(st.integers(1, 40)),
        formatted=column(st.booleans()),
        finished=column(st.booleans()),
    )


def numbers(rewards: list[float | None]) -> list[float]:
    """Return the numbers of a group in which every completion was scored."""
    assert None not in rewards
    return [reward for reward in rewards if reward is not None]
