"""Which words are step markers, and which only look like one. All examples here are made up."""

import logging

import pytest
from prometheus_client import CollectorRegistry

from service.engine.unmarked import UnmarkedThoughts
from service.records.metrics import Metrics
from service.records.sequence import LONG, SequenceRecord
from stepgrpo_core import LEXICONS, ExitReason, ExitSettings, StepSegmenter, count_steps
from stepgrpo_core.control.boundaries import BoundaryFinder
from stepgrpo_core.control.events import Outcome
from stepgrpo_core.policies import BoundaryKind, build_policy

ENGLISH, CHINESE = LEXICONS["english"], LEXICONS["chinese"]


def chunked_markers(text: str, markers: tuple[str, ...]) -> int:
    """Markers that are found when the text comes character by character."""
    segmenter = StepSegmenter(markers)
    return sum(len(segmenter.feed(each)) for each in text) + len(segmenter.finish())


@pytest.mark.parametrize(
    "text",
    [
        "That gives 12. But wait, 12 is even.",
        "Actually, wait. I misread it.",
        "Hmm, actually the base is 7.",
        "So x = 3... wait, no, x = -3.",
        "… no, wait, that was y.",
        "Hold on, the sum starts at 0.",
        "Another way: count the complement.",
        "Just to be sure, plug it in.",
        "Let me double-check this.",
    ],
)
def test_word_forms_and_punctuation_of_a_turn_are_found(text: str) -> None:
    assert count_steps(text, ENGLISH) >= 2
    assert chunked_markers(text, ENGLISH) == count_steps(text, ENGLISH) - 1


@pytest.mark.parametrize("lexicon", ["deer", "paper", "english"])
@pytest.mark.parametrize(
    "text",
    [
        "```python\nWait = 3  # Wait\n```\nso 3",
        "first\n```\nWait\n\nWait\n",  # a block that is never closed
        r"\text{Wait} is a label, and {Wait} a set",
        "the variable `Wait` is free",
        "Waiting rooms await; \\Wait",
    ],
)
def test_code_and_labels_hold_no_marker(lexicon: str, text: str) -> None:
    assert count_steps(text, LEXICONS[lexicon]) == 1
    assert chunked_markers(text, LEXICONS[lexicon]) == 0


def test_a_marker_behind_a_block_of_code_counts_again() -> None:
    text = "Try:\n```\nWait\n```\nWait, that is wrong. a```b Wait"
    assert count_steps(text) == 3  # three backticks within a line are no fence


@pytest.mark.parametrize(
    "text", ["Wait time is 5 minutes.", "The Wait-list has 3.", "Wait for the bus", "Wait times"]
)
def test_waiting_that_is_meant_is_no_marker(text: str) -> None:
    assert count_steps(text, ENGLISH) == 1
    assert chunked_markers(text, ENGLISH) == 0
    assert count_steps("Wait, time is up", ENGLISH) == 2


@pytest.mark.parametrize(
    ("text", "markers"),
    [
        ("三角形、圆形等等，都是图形。", 0),
        ("x=1，或者x=2", 0),
        ("这可能不对称", 0),
        ("对不对呢", 0),
        ("结果可能不对", 0),
        ("先算。另外，用户可能只想知道结果。", 0),
        ("所以选D。让我们仔细检查：3 > 3。", 1),
        ("哎呀，原题是3。重新理解：共45人。", 2),
        ("先算。等等，我看错了。", 1),
        ("不对，应该是7", 1),
        ("换个思路，设x为未知数", 1),
        ("\n或者用另一种方法", 2),
    ],
)
def test_chinese_markers_are_turns_and_not_their_everyday_meanings(text: str, markers: int) -> None:
    assert count_steps(text, CHINESE) - 1 == markers
    assert chunked_markers(text, CHINESE) == markers


def test_every_language_has_a_lexicon_that_can_be_named() -> None:
    for language in ("english", "chinese", "german", "french", "spanish", "japanese", "russian"):
        assert count_steps("", LEXICONS[language]) == 1
    assert LEXICONS["deer"] == ("Wait",)  # the papers' own stay as they are
    assert LEXICONS["paper"] == ("Wait", "Alternatively") == ExitSettings().markers


# A thought without markers.


def fed(finder: BoundaryFinder, texts: list[str]) -> list[tuple[int, BoundaryKind]]:
    found = [each for text in texts for each in finder.feed(text)]
    return [(each.tokens, each.place) for each in found]


def test_a_paragraphs_end_stands_in_for_a_marker_that_is_overdue() -> None:
    places = frozenset({BoundaryKind.MARKER, BoundaryKind.GAP})
    line = ["so", " on", ".", "\n\n"]
    assert fed(BoundaryFinder(("Wait",), places, 6), line * 4) == [
        (8, BoundaryKind.GAP),
        (16, BoundaryKind.GAP),
    ]
    assert fed(BoundaryFinder(("Wait",), places, None), line * 4) == []
    assert fed(BoundaryFinder(("Wait",), frozenset({BoundaryKind.MARKER}), 6), line * 4) == []
    split = ["a", " b", "\n", " ", "\n", "c"]  # a blank line in several tokens
    assert fed(BoundaryFinder(("Wait",), places, 3), split) == [(5, BoundaryKind.GAP)]
    within = ["a"] * 6 + ["\n\nWait", ",", "\n\n"]  # the marker itself, then too soon
    assert fed(BoundaryFinder(("Wait",), places, 5), within) == [(6, BoundaryKind.MARKER)]


def test_policies_that_ask_at_markers_ask_there_and_it_is_no_step() -> None:
    for name, stands_in in (("confidence", True), ("sufficiency", True), ("budget", False)):
        (policy,) = build_policy(ExitSettings(policy=name, max_steps=3))
        assert (BoundaryKind.GAP in policy.needs.kinds) is stands_in
    finder = BoundaryFinder(("Wait",), frozenset({BoundaryKind.MARKER, BoundaryKind.GAP}), 1)
    fed(finder, ["a", "b", "\n\n", "c", "d", "\n\n"])
    assert finder.steps == 1


def test_long_thoughts_without_a_marker_are_counted_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def record(steps: int, tokens: int) -> SequenceRecord:
        outcome = Outcome(ExitReason.NATURAL, steps, tokens, 0, 0, (), None)
        return SequenceRecord(0, "m", "none", 1, outcome=outcome)

    assert record(1, LONG).lacks_markers
    assert not record(2, LONG).lacks_markers
    assert not record(1, LONG - 1).lacks_markers
    assert not SequenceRecord(0, "m", "none", 1).lacks_markers
    said = UnmarkedThoughts(("Wait",))
    with caplog.at_level(logging.WARNING):
        for each in (record(2, LONG), *[record(1, LONG)] * 100):
            said.ended(each)
    assert caplog.messages == [
        "1 long thoughts held none of the step markers (Wait, ...): see --exit-markers."
    ]
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for each in (record(1, LONG), record(2, LONG)):
        metrics.ended(each)
    name, labels = "stepgrpo_thoughts_without_marker_total", {"model_name": "m", "policy": "none"}
    assert registry.get_sample_value(name, labels) == 1
