"""Stop strings of the answer: the same text and the same end as one search of the whole text."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from vllm.sampling_params import SamplingParams

from service.streams.stop_strings import AnswerStops
from tests.support.service.sequence import delta


def run(texts: list[str], **params: Any) -> tuple[list[str], str | None]:
    """What each token's delta says, up to the stop; the stop string."""
    stops = AnswerStops(SamplingParams(**params))
    said = []
    for number, text in enumerate(texts, 1):
        end = "length" if number == len(texts) else None
        output = stops.take(delta(text, end), number)
        completion = output.outputs[0]
        said.append(completion.text)
        if completion.finish_reason == "stop":
            assert output.finished
            return said, completion.stop_reason
        assert completion.finish_reason == end
    return said, None


def test_a_stop_string_over_several_tokens_is_never_sent() -> None:
    assert run(["The", " fi", "nal", " answer"], stop=["final"]) == (["", "Th", "e "], "final")
    assert run(["a", "b", "c"], stop=["b"]) == (["a", ""], "b")
    assert run(["ab", "c"], stop=["zzz"]) == (["", "abc"], None)  # held back to the end


def test_with_the_stop_string_included_nothing_is_held_back() -> None:
    included = {"include_stop_str_in_output": True}
    assert run(["x fi", "nal.", "y"], stop=["final"], **included) == (["x fi", "nal"], "final")
    assert run(["ab", "c"], stop=["zzz"], **included) == (["ab", "c"], None)


def test_the_string_that_is_complete_first_counts_then_the_one_named_first() -> None:
    assert run(["abcd"], stop=["bcd", "bc"])[1] == "bc"
    assert run(["abcd"], stop=["cd", "bcd"])[1] == "cd"
    assert run(["abcd"], stop=["bcd", "cd"])[1] == "bcd"


def test_no_stop_before_min_tokens() -> None:
    assert run(["a", "b", "a", "b"], stop=["b"], min_tokens=2) == (["a", "b", "a", ""], "b")
    assert run(["a", "b", "c"], stop=["ab"], min_tokens=2)[1] is None
    assert run(["a", "b", "c"], stop=["bc"], min_tokens=2)[1] == "bc"  # may have begun before


pieces = st.lists(st.text("ab\U0001f914", max_size=4), min_size=1, max_size=12)
strings = st.lists(st.text("ab\U0001f914", min_size=1, max_size=4), min_size=1, max_size=3)


@given(pieces, strings, st.booleans())
def test_tokens_do_not_matter(texts: list[str], stop: list[str], include: bool) -> None:
    said, found = run(texts, stop=stop, include_stop_str_in_output=include)
    whole = "".join(texts)
    ends = [(whole.find(each) + len(each), i) for i, each in enumerate(stop) if each in whole]
    if not ends:
        assert ("".join(said), found) == (whole, None)
        return
    end, number = min(ends)
    assert found == stop[number]
    assert "".join(said) == whole[: end if include else end - len(found)]
