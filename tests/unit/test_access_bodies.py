"""Limits on request bodies, and that checking them is cheap."""

import json
import random
from typing import Any

import pytest

from service.access.bodies import MAX_DEPTH, MAX_ENTRIES, MAX_N, MAX_PARTS, check_body
from service.access.refusals import Refused


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + closing * depth).encode()


def refusal(body: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        check_body(body)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_depth_is_bounded_to_the_last_bracket(opening: str, closing: str) -> None:
    each = opening.count("[") + opening.count("{")
    most = MAX_DEPTH // each
    inner = "1" if opening[-1] == ":" else ""
    assert check_body((opening * most + inner + closing * most).encode()) == 1
    over = (opening * (most + 1) + inner + closing * (most + 1)).encode()
    assert "nested more than 64 deep" in refusal(over).message
    wide = b"[" + b",".join([over[: len(over)]] + [b"[]"] * 9) + b"]"
    refusal(wide)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b"[" + b"]" * 65 + b"[" * 65,
        b"[]" * 50_000 + b"[" * 65,
        b"\xef\xbb\xbf  " + nested(65),
        b" \n\t\r" * 100 + nested(65),
    ],
    ids=["open", "open objects", "turned round", "after others", "a mark before", "white space"],
)
def test_brackets_that_never_close_are_deep_too(body: bytes) -> None:
    assert "nested" in refusal(body).message


@pytest.mark.parametrize(
    "text",
    ["[" * 100, "}{" * 100, '"' + "[" * 100, "\\" * 3 + '"' + "[" * 100, "\\", "\\" * 8, '\\"['],
)
def test_brackets_inside_of_strings_are_text(text: str) -> None:
    assert check_body(json.dumps({"prompt": text, "n": 2}).encode()) == 2
    assert check_body(json.dumps([text, [text]], ensure_ascii=False).encode()) == 1


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


def test_depth_is_that_of_the_parsed_body() -> None:
    """Compare with a count of the parsed value, for random values around the limit."""
    random.seed(1)

    def value(depth: int) -> Any:
        if depth == 0:
            return random.choice([1, "a[", '"{', "\\", None, {}, []])
        inner = [value(depth - 1), *(value(0) for _ in range(random.randrange(3)))]
        random.shuffle(inner)
        return inner if random.random() < 0.5 else {f"k{i}]": v for i, v in enumerate(inner)}

    verdicts = set()
    for _ in range(300):
        body = [value(random.randrange(MAX_DEPTH - 4, MAX_DEPTH + 4))]
        deep = depth_of(body) > MAX_DEPTH
        verdicts.add(deep)
        if deep:
            refusal(json.dumps(body).encode())
        else:
            assert check_body(json.dumps(body).encode()) == 1
    assert verdicts == {True, False}


def test_parts_are_counted() -> None:
    assert check_body(b"[" + b",".join([b"{}"] * (MAX_PARTS - 1)) + b"]") == 1
    body = b"[" + b",".join([b"{}"] * MAX_PARTS) + b"]"
    assert "more than 65536 objects" in refusal(body).message


@pytest.mark.parametrize("name", MAX_ENTRIES)
def test_entries_are_counted_and_named(name: str) -> None:
    most = MAX_ENTRIES[name]
    assert check_body(json.dumps({name: ["a"] * most}).encode()) >= 1
    refused = refusal(json.dumps({name: ["a"] * (most + 1)}).encode())
    assert refused.param == name
    assert f"{name} has {most + 1} entries, and this server takes {most}" in refused.message
    inside = json.dumps({"sampling_params": {name: ["a"] * (most + 1)}}).encode()
    assert refusal(inside).param == name


def test_biases_are_entries_and_ids_of_one_prompt_are_none() -> None:
    biases = {str(n): 1 for n in range(MAX_ENTRIES["logit_bias"] + 1)}
    assert refusal(json.dumps({"logit_bias": biases}).encode()).param == "logit_bias"
    assert refusal(json.dumps({"stop_token_ids": [1] * 2000}).encode()).param == "stop_token_ids"
    assert check_body(json.dumps({"prompt": [1] * 100_000}).encode()) == 1


@pytest.mark.parametrize(
    ("body", "sequences"),
    [
        ({"n": 3}, 3),
        ({"n": 3, "prompt": ["a", "b"]}, 6),
        ({"n": 3, "prompt": [[1, 2], [3]]}, 6),
        ({"n": 3, "prompt": [1, 2]}, 3),
        ({"prompt": []}, 1),
        ({"n": -5, "prompt": "a"}, 1),
        ({"n": "3"}, 3),
        ({"n": MAX_N}, MAX_N),
        ([{"n": 3}], 1),
    ],
)
def test_sequences_are_what_is_asked_for(body: Any, sequences: int) -> None:
    assert check_body(json.dumps(body).encode()) == sequences


def test_n_is_bounded() -> None:
    refused = refusal(json.dumps({"n": MAX_N + 1}).encode())
    assert (refused.param, refused.message) == (
        "n",
        "n=129 is more than the 128 that this server takes.",
    )


@pytest.mark.parametrize("body", [b"", b"nonsense", b"{", b'{"n": 3', b"--boundary\r\n[[[", b"3"])
def test_what_is_no_json_is_left_to_who_reads_it(body: bytes) -> None:
    assert check_body(body) == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32"])
def test_another_encoding_could_hide_brackets(encoding: str) -> None:
    assert "UTF-8" in refusal('{"n": 2}'.encode(encoding)).message
