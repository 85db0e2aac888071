"""Where policies may act: the same boundaries however text falls into tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_core import DEFAULT_MARKERS
from stepgrpo_core.control.boundaries import BoundaryFinder, step_starts
from stepgrpo_core.policies import BoundaryKind
from tests.support.core.scripted import THINKING, Script

EVERYWHERE = frozenset(BoundaryKind)


def found(texts: list[str], *places: BoundaryKind) -> list[int]:
    finder = BoundaryFinder(DEFAULT_MARKERS, frozenset(places))
    due = [each for text in texts for each in finder.feed(text)]
    return [each.tokens for each in (*due, *finder.finish())]


@pytest.mark.parametrize(
    ("place", "text", "ends"),
    [
        (BoundaryKind.LINE, "a\nb\n\nc", [2, 4, 5]),
        (BoundaryKind.PARAGRAPH, "a\n\nb\n \t\n\n\nc", [3, 8]),
        (BoundaryKind.PARAGRAPH, "\n\na\nb", []),
        (BoundaryKind.SENTENCE, "It is 3.14. So? Yes! ", [11, 15, 20]),
        (BoundaryKind.SENTENCE, 'He said "no." Then (yes.) x', [13, 25]),
        (BoundaryKind.SENTENCE, "Hmm... ok", [6]),
        (BoundaryKind.SENTENCE, "5+5=10\n\n10-1=9.\n", [7, 15]),
        (BoundaryKind.SENTENCE, "先算。再算！", [3, 6]),
        (BoundaryKind.SENTENCE, "the end is none.", []),
        (BoundaryKind.SENTENCE, "f.x e.g. it", [8]),
        (BoundaryKind.MARKER, "a Wait b Waiting", [2]),
        (BoundaryKind.ANY, "abc", [1, 2, 3]),
    ],
)
def test_boundaries_by_character(place: BoundaryKind, text: str, ends: list[int]) -> None:
    assert found(list(text), place) == ends


@pytest.mark.parametrize(
    ("place", "tokens", "kept"),
    [
        (BoundaryKind.LINE, ["a", "b\nc", "d"], [2]),  # after the newline's token
        (BoundaryKind.LINE, ["a\n\n", "b"], [1, 1]),
        (
            BoundaryKind.SENTENCE,
            ["5", ".", "", " é"],
            [2],
        ),  # not after the bytes of the next character
        (BoundaryKind.SENTENCE, ["5.", " So"], [1]),
        (BoundaryKind.SENTENCE, ["", "。", "x"], [2]),
        (BoundaryKind.MARKER, ["a", "", "é Wait", ","], [1]),
        (BoundaryKind.ANY, ["a", "", "", "é"], [1, 1, 1, 4]),
        (BoundaryKind.ANY, ["", "é"], [0, 2]),
    ],
)
def test_cuts_fall_between_tokens_and_never_into_a_character(
    place: BoundaryKind, tokens: list[str], kept: list[int]
) -> None:
    assert found(tokens, place) == kept


def test_a_later_boundary_waits_for_text_that_may_hold_an_earlier_one() -> None:
    finder = BoundaryFinder(DEFAULT_MARKERS, EVERYWHERE)
    assert [each.tokens for each in finder.feed("a")] == [1]
    assert finder.feed(" Wa") == []  # may become a marker, before which a cut would fall
    assert finder.feed("it") == []
    due = finder.feed(",")
    assert [(each.tokens, each.place) for each in due] == [
        (1, BoundaryKind.MARKER),
        (2, BoundaryKind.ANY),
        (3, BoundaryKind.ANY),
        (4, BoundaryKind.ANY),
    ]
    assert [each.generated for each in due] == [4, 2, 3, 4]


def test_what_cannot_hold_a_boundary_is_not_waited_for() -> None:
    finder = BoundaryFinder(DEFAULT_MARKERS, EVERYWHERE)
    finder.feed("5. Wa")
    assert finder.decided(EVERYWHERE) == 0  # before the token with the start of a marker
    assert (
        finder.decided(
            frozenset({BoundaryKind.LINE, BoundaryKind.PARAGRAPH, BoundaryKind.SENTENCE})
        )
        == 1
    )
    finder.feed("")
    assert finder.decided(frozenset({BoundaryKind.ANY})) == 1
    assert finder.decided(frozenset({BoundaryKind.LINE})) == 2


def test_steps_of_what_is_kept_are_counted_by_themselves() -> None:
    finder = BoundaryFinder(DEFAULT_MARKERS, frozenset({BoundaryKind.ANY}))
    for text in ("a ", "Wait", "ing", " Wait", ","):
        finder.feed(text)
    assert (finder.steps, finder.tokens) == (2, 5)
    assert [finder.steps_of(tokens) for tokens in range(6)] == [1, 1, 2, 1, 2, 2]
    assert [finder.steps_before(tokens) for tokens in (3, 4)] == [1, 2]


pieces = st.lists(
    st.sampled_from(["a", ".", "?", '"', "\n", " ", "。", "Wait", "Wa", "it", "", ",", "1", ")"]),
    max_size=30,
)


@given(pieces)
def test_boundaries_come_in_order_and_nothing_comes_before_what_is_decided(
    texts: list[str],
) -> None:
    finder = BoundaryFinder(DEFAULT_MARKERS, EVERYWHERE)
    last = decided = 0
    for number, text in enumerate(texts, start=1):
        for each in finder.feed(text):
            assert max(last, decided) <= each.tokens <= each.generated <= number
            last = each.tokens
        assert decided <= finder.decided(EVERYWHERE) <= number
        decided = finder.decided(EVERYWHERE)
    assert all(each.tokens >= max(last, decided) for each in finder.finish())


@given(pieces)
def test_one_character_a_token_finds_what_larger_tokens_find(texts: list[str]) -> None:
    """Places in the text are the same; larger tokens only round the cuts."""
    characters = list("".join(texts))
    for place in (
        BoundaryKind.LINE,
        BoundaryKind.PARAGRAPH,
        BoundaryKind.SENTENCE,
        BoundaryKind.MARKER,
    ):
        assert len(found(characters, place)) == len(found(texts, place))


@pytest.mark.parametrize(
    ("words", "thinking_open", "starts"),
    [
        (
            ["<think>", "a", " Wait", ",", "b ", "Wait", "!", "</think>", " Wait", "!"],
            False,
            (2, 5),
        ),
        (["\n", "<think>", "Wait", " a", " Wait"], False, (2,)),  # the end is no boundary
        (["a", " Wait", " b", "</think>", " Wait"], True, (1,)),
        (["<think>", "a", "<tool_call>", " Wait", " b"], False, ()),
        (["a", "<think>", " Wait", " b"], False, ()),  # an answer from the start
        (["<think>", "Wait Wait", " b"], False, (1, 1)),
        ([], False, ()),
    ],
)
def test_steps_of_a_whole_completion_start_where_a_controller_cuts(
    words: list[str], thinking_open: bool, starts: tuple[int, ...]
) -> None:
    found = step_starts(
        Script(words).ids, words, THINKING, markers=DEFAULT_MARKERS, thinking_open=thinking_open
    )
    assert found == starts
