"""Steps are whole-word markers, counted the same however the text arrives."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_core import LEXICONS, InvalidSetting, Marker, StepSegmenter, count_steps
from tests.support.core.cases import STEP_CASES, StepCase

ALPHABET = "Wait,Al rne tivlyBuHm é等不对\u0301_2\U00020000"


def markers_of(chunks: list[str], markers: tuple[str, ...]) -> tuple[list[Marker], int]:
    segmenter = StepSegmenter(markers)
    found = [marker for chunk in chunks for marker in segmenter.feed(chunk)]
    return found + segmenter.finish(), segmenter.steps


@pytest.mark.parametrize("case", STEP_CASES, ids=lambda case: repr(case.text))
def test_cases_whole_and_one_character_at_a_time(case: StepCase) -> None:
    assert count_steps(case.text, case.markers) == case.steps
    whole = markers_of([case.text], case.markers)
    assert whole == markers_of(list(case.text), case.markers)
    assert whole[1] == case.steps == len(whole[0]) + 1
    assert all(case.text[m.start : m.end] == m.text for m in whole[0])


@pytest.mark.parametrize("lexicon", LEXICONS)
@given(data=st.data())
def test_any_chunking_gives_the_same_markers(lexicon: str, data: st.DataObject) -> None:
    markers = LEXICONS[lexicon]
    piece = st.one_of(st.sampled_from(markers), st.text(alphabet=ALPHABET, max_size=6))
    text = "".join(data.draw(st.lists(piece, max_size=12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert markers_of(chunks, markers) == markers_of([text], markers)


@given(st.lists(st.text(alphabet=ALPHABET, max_size=6), max_size=12))
def test_no_marker_ever_starts_before_the_undecided_offset(chunks: list[str]) -> None:
    segmenter = StepSegmenter()
    safe = 0
    for chunk in chunks:
        assert all(marker.start >= safe for marker in segmenter.feed(chunk))
        assert segmenter.undecided >= safe
        safe = segmenter.undecided
    assert all(marker.start >= safe for marker in segmenter.finish())


def test_a_marker_is_certain_with_the_character_after_it() -> None:
    segmenter = StepSegmenter()
    assert segmenter.feed("55. Wai") == []
    assert segmenter.undecided == 4
    assert segmenter.feed("t") == []
    assert segmenter.feed(",") == [Marker(4, 8, "Wait")]
    assert segmenter.undecided == 9
    assert segmenter.finish() == []


def test_multi_byte_text_split_inside_characters_by_a_decoder() -> None:
    data = "先算。等等，Wait，再算".encode()
    chunks = [data[:5], data[5:10], data[10:]]
    import codecs  # noqa: PLC0415

    decoder = codecs.getincrementaldecoder("utf-8")()
    markers = (*LEXICONS["chinese"], "Wait")
    assert markers_of([decoder.decode(c) for c in chunks], markers)[1] == 3


@pytest.mark.parametrize("lexicon", LEXICONS)
def test_hostile_text_takes_linear_time(lexicon: str) -> None:
    def seconds(size: int) -> float:
        text = "Wai" * (size // 3)
        started = time.process_time()
        assert count_steps(text, LEXICONS[lexicon]) == 1
        return time.process_time() - started

    seconds(300_000)
    small, large = min(seconds(1_000_000) for _ in range(3)), seconds(10_000_000)
    assert large < 40 * small  # 10 is linear, 100 would be quadratic


def test_hostile_stream_takes_linear_time_and_bounded_memory() -> None:
    segmenter = StepSegmenter()
    for _ in range(20_000):
        segmenter.feed("Wai")
    assert len(segmenter._buffer) <= 1 + max(map(len, LEXICONS["paper"]))
    assert segmenter.finish() == []


@pytest.mark.parametrize("markers", [(), ("",), ("Wait", "")])
def test_empty_markers_are_refused(markers: tuple[str, ...]) -> None:
    with pytest.raises(InvalidSetting, match="none empty"):
        count_steps("text", markers)


def test_one_string_is_not_a_list_of_markers() -> None:
    with pytest.raises(InvalidSetting, match="not one string"):
        count_steps("text", "Wait")


def test_markers_are_text_and_never_patterns() -> None:
    assert count_steps("a.c abc", ("a.c",)) == 2
    assert count_steps("(a+)+", ("(a+)+",)) == 2
