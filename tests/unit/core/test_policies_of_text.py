"""Policies that read the text: patterns and repetitions."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from stepgrpo_core import ExitSettings, build_policy
from stepgrpo_core.policies import Boundary, BoundaryKind, ExitPolicy

MATCHER = re.compile(r"^Done\.$")


def policy(name: str, **settings: Any) -> ExitPolicy:
    (built,) = build_policy(ExitSettings(policy=name, **settings), MATCHER)
    return built


# pattern


def texts_decided(asked: ExitPolicy, texts: Sequence[str]) -> list[str | None]:
    return [
        asked.decide(Boundary(9, 1, 8, BoundaryKind.SENTENCE, text=text), None).reason
        for text in texts
    ]


def test_a_pattern_sees_the_current_line_however_it_is_cut() -> None:
    assert texts_decided(policy("pattern"), ["I am ", "Done.", "\n", "Done."])[-1] == "pattern"
    assert texts_decided(policy("pattern"), ["Do", "ne."]) == [None, "pattern"]
    assert texts_decided(policy("pattern"), ["I am\nDone.\nso"]) == ["pattern"]
    assert texts_decided(policy("pattern"), ["Not", " Done."]) == [None, None]


def test_a_pattern_searches_each_character_so_often_at_most() -> None:
    seen: list[int] = []

    class Counting:
        def search(self, text: str, /) -> object:
            seen.append(len(text))
            return None

    (asked,) = build_policy(ExitSettings(policy="pattern"), Counting())
    texts_decided(asked, ["x. "] * 10_000)
    assert max(seen) == 1024
    assert sum(seen) <= 1024 * 30_000


# repetition

LINE = "So the sum is 55."


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([LINE] * 3, 2),
        ([LINE, f"  {LINE}\n", LINE], 2),
        ([LINE] * 2, None),
        ([LINE, "Other one here.", LINE, LINE], None),
        (["A first sentence.", "A second."] * 3, 5),
        (["x", *["A first sentence.", "A second.", "3."] * 3], 9),
        ([f"Sentence {n}." for n in range(8)] * 3, 23),
        ([f"Sentence {n}." for n in range(9)] * 4, None),  # too long a turn
        (["0"] * 12, None),  # a column of zeros
        (["No.", "But yes."] * 3, None),  # too short a turn
    ],
)
def test_three_identical_chunks_are_a_loop(texts: list[str], expected: int | None) -> None:
    decided = texts_decided(policy("repetition"), texts)
    fired = [place for place, reason in enumerate(decided) if reason]
    assert fired[:1] == ([] if expected is None else [expected])


def test_how_many_chunks_make_a_loop_is_a_setting() -> None:
    asked = policy("repetition", repetition_chunks=2)
    assert texts_decided(asked, [LINE, LINE]) == [None, "repetition"]


def looped(tokens: Sequence[str], copies: int, before: int = 0) -> int | None:
    """Tokens after which copies of `tokens` are a loop; None if they are none."""
    asked = policy("repetition")
    stream = [*(f"x{n} " for n in range(before)), *(list(tokens) * copies)]
    for place, text in enumerate(stream, 1):
        found = asked.decide(Boundary(place, 1, place, BoundaryKind.ANY, text=text), None)
        if found.reason:
            return place
    return None


@pytest.mark.parametrize(
    ("period", "copies", "expected"),
    [(1, 200, 128), (1, 127, None), (5, 40, 128), (100, 3, None), (100, 4, 320), (128, 4, 384)],
)
def test_cycles_of_tokens_are_a_loop_after_three_copies_and_128_tokens(
    period: int, copies: int, expected: int | None
) -> None:
    assert looped([f"w{n} " for n in range(period)], copies) == expected


def test_what_is_no_cycle_of_at_most_128_tokens_is_no_loop() -> None:
    assert looped([f"w{n} " for n in range(129)], 5) is None
    assert looped([" "], 300) is None
    assert looped(["0 "], 120, before=100) is None
    counted = [word for n in range(200) for word in ("so ", f"{n} ", "is ", "next ")]
    assert looped(counted, 1) is None
