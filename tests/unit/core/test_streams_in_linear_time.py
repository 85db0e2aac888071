"""Hostile streams take linear time: twice the text, about twice the work.

Work is counted in executed lines of the core, which no other process disturbs. What C code does in
one line (searching, joining, copying) is seen in the time that four times the text takes, against
bounds half-way between linear and quadratic.
"""

import itertools
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stepgrpo_core
from stepgrpo_core import (
    LEXICONS,
    ExitController,
    ExitSettings,
    Finished,
    ProbeAnswered,
    StartProbe,
    StepSegmenter,
    Tokens,
)
from tests.support.core.scripted import THINKING

# Everything that decides in the text, and questions at every boundary there is.
ALL = "confidence+consistency+margin+entropy+budget+pattern+repetition"
BUSY = ExitSettings(
    policy=ALL, min_interval=0, max_probes=10**9, answer_reserve=0, budget_tokens=10**9
)
CALM = ExitSettings(policy="confidence+repetition", max_probes=2)
PIECES = [
    *(
        "Wait",
        " Wait",
        "Wai",
        "W",
        "ait",
        "t",
        "Alternatively",
        "Alternativel",
        "But wait",
        "让我再检查",
    ),
    *(
        "等",
        "等等",
        "\u0301",
        "e\u0301",
        "\u200d",
        "\ud83e",
        "\udd14",
        "\U0001f914",
        "\x00",
        "\u2028",
    ),
    *(".", "!", '"', ")", "。", '."', "\n", "\n\n", " ", "\t", "", "", "a", "a. ", "Done."),
    *("<think>", "</think", "\\boxed{", "x" * 50, " " * 50, "Wait" * 10),
]
pieces = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), min_size=1, max_size=6)


def repeated(period: Sequence[str], tokens: int) -> list[str]:
    return list(itertools.islice(itertools.cycle(period), tokens))


def lines(run: Callable[[], object]) -> int:
    """How many lines of the core `run` executes."""
    count = 0
    folder = stepgrpo_core.__path__[0]

    def local(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return local

    def entered(frame: FrameType, _event: str, _argument: Any) -> Any:
        return local if frame.f_code.co_filename.startswith(folder) else None

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def control(texts: list[str], asked: ExitSettings) -> None:
    """A thinking of these tokens; every fourth question fails, the others stay open a while."""
    controller = ExitController(asked, THINKING, thinking_open=True, matcher=re.compile("Done now"))
    open_probes: list[int] = []
    for number, text in enumerate(texts):
        commands = controller.receive(Tokens([200 + number % 50], [text]))
        open_probes += [each.probe for each in commands if isinstance(each, StartProbe)]
        while len(open_probes) > 8:
            controller.receive(ProbeAnswered(open_probes.pop(0), None))
    controller.receive(Finished("length"))
    for probe in open_probes:
        controller.receive(ProbeAnswered(probe, None))


def segment(texts: list[str], lexicon: str) -> None:
    segmenter = StepSegmenter(LEXICONS[lexicon])
    for text in texts:
        segmenter.feed(text)
        assert len(segmenter._buffer) <= 1 + max(map(len, LEXICONS[lexicon]))
    segmenter.finish()


@settings(deadline=None, max_examples=30)
@given(pieces, st.sampled_from(sorted(LEXICONS)))
def test_the_segmenter(period: list[str], lexicon: str) -> None:
    small, large = (lines(partial(segment, repeated(period, n), lexicon)) for n in (200, 400))
    assert large <= 2.3 * small


@settings(deadline=None, max_examples=30)
@given(pieces, pieces, st.sampled_from([BUSY, CALM]))
def test_the_controller(first: list[str], then: list[str], asked: ExitSettings) -> None:
    """One pattern, then another: what the first leaves behind must not burden the second."""

    def run(tokens: int) -> int:
        return lines(lambda: control(repeated(first, tokens) + repeated(then, tokens), asked))

    small, large = run(100), run(200)
    assert large <= 2.3 * small


FLOODS = [
    *(["Wait"], ["Wai"], [" W", "a", "i", "t", ","], ["Alternativel"], ["让我再检查", "等"]),
    *(
        ["e", "\u0301", "Wai", "t\u0301"],
        ["\ud83e", "Wait"],
        [".", *'"' * 5],
        ["\n"],
        [""],
        ["x" * 50],
    ),
]


def seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


@pytest.mark.parametrize("period", FLOODS, ids=repr)
def test_floods_of_tokens(period: list[str]) -> None:
    small = min(seconds(lambda: control(repeated(period, 1_000), BUSY)) for _ in range(3))
    large = min(seconds(lambda: control(repeated(period, 4_000), BUSY)) for _ in range(2))
    assert large < 10 * small  # 4 is linear, 16 would be quadratic


def test_bytes_of_characters_that_never_end() -> None:
    """Tokens without any text, on both sides of one that may begin a marker."""

    def run(tokens: int) -> None:
        control([*[""] * tokens, "x Wai", *[""] * tokens], BUSY)

    small, large = lines(lambda: run(300)), lines(lambda: run(600))
    assert large <= 2.3 * small
