"""Runs of quiet tokens are skipped: every result equals that of one token after the other."""

import functools
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgrpo_core import (
    DEFAULT_MARKERS,
    LEXICONS,
    CloseThinking,
    ExitController,
    ExitSettings,
    StartProbe,
    Tokens,
    count_steps,
)
from stepgrpo_core.control.boundaries import BoundaryFinder, Found
from stepgrpo_core.control.events import Command
from stepgrpo_core.control.states import State
from stepgrpo_core.policies import BoundaryKind
from stepgrpo_core.segmenter import is_quiet
from tests.support.core.scripted import THINKING
from tests.support.models import TOKENIZER

PIECES = [
    *("Wait", " Wait", "Wai", "W", "ait", "t", "Al", "ternatively", "But wait", "But", " wait"),
    *("", "é", "漢", "等等", "，", "或者", "\u0301", "a", " the", " sum", "7", "0", ".", "?", '"'),
    *("\n", "\n\n", " ", "\t", "`", "``", "```", "```\n", "{", "\\", "Hold", " on", "let me", "-"),
    *(" check", "Hmm", ",", " actually", "。", "」", "!", "\r\n", "    ", " \n", "Let me re", "A"),
]
VOCABULARY = sorted({TOKENIZER.decode([each]) for each in range(len(TOKENIZER))})
KINDS = [
    frozenset[BoundaryKind](),
    frozenset({BoundaryKind.MARKER}),
    frozenset({BoundaryKind.MARKER, BoundaryKind.GAP}),
    frozenset({BoundaryKind.LINE}),
    frozenset({BoundaryKind.SENTENCE, BoundaryKind.PARAGRAPH}),
    frozenset({BoundaryKind.MARKER, BoundaryKind.SENTENCE, BoundaryKind.GAP}),
    frozenset({BoundaryKind.ANY}),
]
MARKERS = [DEFAULT_MARKERS, *LEXICONS.values()]
texts_of = st.lists(st.sampled_from(PIECES) | st.sampled_from(VOCABULARY), max_size=60)


def plain(
    finder: BoundaryFinder, texts: Sequence[str], places: frozenset[BoundaryKind]
) -> list[tuple[list[Found], int, int, int]]:
    return [
        (finder.feed(text), finder.decided(places), finder.complete, finder.steps) for text in texts
    ]


def skipping(
    finder: BoundaryFinder, texts: Sequence[str], sizes: Sequence[int]
) -> dict[int, tuple[list[Found], int, int, int]]:
    """Return what is known after some of the tokens, by their number."""
    known, place, turn = {}, 0, 0
    while place < len(texts):
        end = min(place + sizes[turn % len(sizes)], len(texts))
        turn += 1
        while place < end:
            found = list[Found]()
            run = finder.skip(texts, place, end)
            if not run:
                run, found = 1, finder.feed(texts[place])
            place += run
            decided = finder.decided(finder._places)
            known[place - 1] = (found, decided, finder.complete, finder.steps)
    return known


@settings(max_examples=300)
@given(
    texts_of,
    st.sampled_from(KINDS),
    st.sampled_from(MARKERS),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_the_finder_finds_the_same(
    texts: list[str],
    places: frozenset[BoundaryKind],
    markers: tuple[str, ...],
    sizes: list[int],
) -> None:
    one, other = (BoundaryFinder(markers, places, gap=3) for _ in range(2))
    expected, known = plain(one, texts, places), skipping(other, texts, sizes)
    assert [e for each in expected for e in each[0]] == [e for k in known.values() for e in k[0]]
    if places:  # otherwise steps are counted later, and nothing reads them before the end
        assert {place: expected[place] for place in known} == known
    assert one.finish() == other.finish()
    assert one.steps == other.steps == count_steps("".join(texts), markers)
    assert (one.complete, one.tokens) == (other.complete, other.tokens)
    for tokens in range(len(texts) + 1):
        assert one.text(0, tokens) == other.text(0, tokens)
        if places:
            assert one.steps_before(tokens) == other.steps_before(tokens)


@given(texts_of, st.sampled_from(["none", "confidence", "budget", "repetition", "margin+budget"]))
def test_the_controller_commands_the_same_however_tokens_are_packed(
    texts: list[str], policy: str
) -> None:
    ids = list(range(100, 100 + len(texts)))
    setting = ExitSettings(policy=policy, budget_tokens=20, answer_reserve=0, min_interval=1)
    found = []
    for size in (1, 7, 1000):
        controller = ExitController(setting, THINKING, thinking_open=True)
        acts: list[Command] = []
        for start in range(0, len(ids), size):
            part = slice(start, start + size)
            acts += controller.receive(Tokens(ids[part], texts[part]))
            if controller.state is State.ANSWERING:
                break
        probes = [(each.position, each.spec) for each in acts if isinstance(each, StartProbe)]
        closes = [each for each in acts if isinstance(each, CloseThinking)]
        found.append((probes, closes))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("markers", MARKERS)
def test_a_marker_is_never_quiet_nor_the_beginning_of_one(markers: tuple[str, ...]) -> None:
    for marker in markers:
        text = marker.lstrip("!^") or marker
        assert not any(is_quiet(text[:size], markers) for size in range(1, len(text) + 1))
        assert not is_quiet(f" {text}", markers)


def test_a_token_of_very_many_characters_is_skipped_as_well() -> None:
    finder = BoundaryFinder(DEFAULT_MARKERS, frozenset({BoundaryKind.MARKER}))
    assert finder.skip(["x" * 1000] * 3, 0, 3) == 3
    assert [each.tokens for each in [*finder.feed(" Wait"), *finder.feed(",")]] == [3]


def _caches() -> list[Path]:
    return sorted((Path(__file__).parents[3] / ".cache").rglob("tokenizer.json"))


@functools.cache
def _vocabulary(path: Path) -> list[str]:
    from tokenizers import Tokenizer  # noqa: PLC0415 - the core's tests run without it

    tokenizer = Tokenizer.from_file(str(path))
    return [tokenizer.decode([each]) for each in range(0, tokenizer.get_vocab_size(), 7)]


@pytest.mark.skipif(not _caches(), reason="no tokenizer of a real model in the cache")
def test_nearly_all_of_a_real_vocabulary_is_quiet() -> None:
    for path in _caches():
        texts = _vocabulary(path)
        quiet = [text for text in texts if is_quiet(text)]
        assert len(quiet) > 0.9 * len(texts)
        assert all(count_steps(text) == 1 for text in quiet)
