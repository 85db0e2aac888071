"""The block in the last chunk of responses; everything else passes unchanged and at once."""

import json
from typing import Any

import pytest

from service.records.sequence import Saved, SequenceRecord
from stepgrpo_core import ExitReason, Outcome
from tests.support.service.reporting import BLOCK, RECORD, serve

IN_USAGE = BLOCK | {"settings": {"threshold": 0.9, "from": {}}, "saved": {}}
"""The block as in ``usage``, which clients sum: objects are objects in every response."""


def test_json_gets_the_block_true_reasoning_tokens_and_a_true_length() -> None:
    body = {"id": "x", "usage": {"completion_tokens": 40}, "text": "é\n"}
    raw = json.dumps(body).encode()
    out, headers, _ = serve([raw[:9], raw[9:]], b"application/json")
    amended = json.loads(b"".join(out))
    assert amended["stepgrpo"] == BLOCK
    assert amended["usage"]["completion_tokens_details"] == {"reasoning_tokens": 30}
    assert amended["text"] == "é\n"
    assert int(headers[b"content-length"]) == len(b"".join(out))


SAVED = SequenceRecord(0, "m", "confidence", 5, saved=Saved(44, -2, 100, 37))
SAVED.outcome = RECORD.outcome


def told(kind: bytes, *records: SequenceRecord, body: bytes = b"{}") -> dict[str, str]:
    """Return the headers that the middleware added."""
    _, headers, _ = serve([body], kind, records=records)
    names = [name for name in headers if name.startswith(b"x-")]
    return {name.decode(): headers[name].decode() for name in names}


def test_headers_say_the_same() -> None:
    plain = {"x-stepgrpo-exit-reason": "confident", "x-stepgrpo-reasoning-tokens": "30"}
    assert told(b"application/json", RECORD) == plain
    assert told(b"application/json", SAVED) == plain | {
        "x-stepgrpo-saved-tokens": "44; low=-2; high=100",
        "x-stepgrpo-saved-method": "predicted",
    }


def test_of_several_sequences_they_have_the_sum_alone() -> None:
    second = SequenceRecord(1, "m", "confidence", 5)
    second.outcome = RECORD.outcome
    expected = {"x-stepgrpo-reasoning-tokens": "60"}
    assert told(b"application/json", SAVED, second) == expected


def test_no_headers_where_there_is_no_block() -> None:
    assert told(b"application/json") == {}
    assert told(b"application/json", RECORD, body=b'{"error":{"code":400}}') == {}
    assert told(b"text/event-stream", RECORD, body=b"data: [DONE]\n\n") == {}


@pytest.mark.parametrize("counted", [0, 7, 44])
def test_usage_has_the_blocks_count_whatever_vllm_counted(counted: int) -> None:
    details = {"reasoning_tokens": counted, "accepted": 1}
    usage = {"completion_tokens": 40, "completion_tokens_details": details}
    body = json.dumps({"choices": [], "usage": usage}, separators=(",", ":")).encode()
    whole, _, _ = serve([body], b"application/json")
    parts, _, _ = serve([b"data: " + body + b"\n\n", b"data: [DONE]\n\n"], b"text/event-stream")
    streamed = b"".join(parts).split(b"\n\n")[0].removeprefix(b"data: ")
    for each in (b"".join(whole), streamed):
        assert json.loads(each)["usage"]["completion_tokens_details"] == {
            "reasoning_tokens": BLOCK["reasoning_tokens"],
            "accepted": 1,
        }


def test_of_no_thinking_usage_has_zero_where_vllm_counts() -> None:
    unthought = SequenceRecord(0, "m", "none", 5)
    unthought.outcome = Outcome(ExitReason.NONE, 0, 0, 0, 0, (), None)
    usage = {"completion_tokens": 40, "completion_tokens_details": {"reasoning_tokens": 40}}
    body = json.dumps({"usage": usage}).encode()
    out, _, _ = serve([body], b"application/json", records=(unthought,))
    details = json.loads(b"".join(out))["usage"]["completion_tokens_details"]
    assert details == {"reasoning_tokens": 0}


def test_the_block_is_in_the_usage_too_where_sdks_keep_it() -> None:
    """SDKs that assemble a stream drop unknown fields at the top of its last chunk."""
    last = b'data: {"choices":[],"usage":{"completion_tokens":40}}\n\n'
    out, _, _ = serve([last, b"data: [DONE]\n\n"], b"text/event-stream")
    chunk = json.loads(b"".join(out).split(b"data: ")[1])
    assert (chunk["stepgrpo"], chunk["usage"]["stepgrpo"]) == (BLOCK, IN_USAGE)
    without = b'data: {"choices":[{"finish_reason":"stop"}]}\n\n'
    out, _, _ = serve([without, b"data: [DONE]\n\n"], b"text/event-stream")
    chunk = json.loads(b"".join(out).split(b"data: ")[1])
    assert chunk["stepgrpo"] == BLOCK
    assert "usage" not in chunk


def test_in_the_usage_an_object_is_one_in_every_response() -> None:
    """Clients that sum usages raise if an object meets another type."""

    def objects(value: Any) -> Any:
        return {k: objects(v) for k, v in value.items() if isinstance(v, dict)}

    saved = SequenceRecord(
        0, "m", "confidence", 5, settings={"from": {"policy": "x"}}, saved=Saved(4, 2, 9, 3)
    )
    saved.outcome = RECORD.outcome
    found = []
    for record in (RECORD, saved):
        body = json.dumps({"usage": {"completion_tokens": 4}}).encode()
        out, _, _ = serve([body], b"application/json", records=(record,))
        found.append(json.loads(b"".join(out))["usage"]["stepgrpo"])
    assert objects(found[0]) == objects(found[1]) == {"settings": {"from": {}}, "saved": {}}
    assert found[1]["saved"]["tokens"] == 4
    assert (found[0]["cut_at"], "cut_at" in found[1]) == (31, False)  # never null beside a number


def test_without_a_policy_the_usage_is_vllms() -> None:
    record = SequenceRecord(0, "m", "none", 5)
    record.outcome = RECORD.outcome
    body = {"usage": {"completion_tokens": 40}}
    out, _, _ = serve([json.dumps(body).encode()], b"application/json", records=(record,))
    amended = json.loads(b"".join(out))
    assert amended["stepgrpo"]["policy"] == "none"
    assert "stepgrpo" not in amended["usage"]


@pytest.mark.parametrize("body", [b"[1]", b"not json", b'{"error":{"code":400}}'])
def test_what_is_no_completion_passes_byte_for_byte(body: bytes) -> None:
    assert b"".join(serve([body], b"application/json")[0]) == body


def test_without_a_record_nothing_changes() -> None:
    body = b'{"object" : "list"}'
    assert b"".join(serve([body], b"application/json", records=())[0]) == body
    stream = b'data: {"choices":[]}\n\n'
    assert b"".join(serve([stream, b"data: [DONE]\n\n"], b"text/event-stream", records=())[0]) == (
        stream + b"data: [DONE]\n\n"
    )


def test_a_stream_gets_it_in_its_last_chunk_and_nothing_waits() -> None:
    delta = b'"delta":{"content":"finish_reason\\":\\"stop"}'
    token = b'data: {"choices":[{' + delta + b',"finish_reason":null}]}\n\n'
    end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"completion_tokens":40}}\n\n'
    done = b"data: [DONE]\n\n"
    out, _, _ = serve([token, end, usage, done], b"text/event-stream; charset=utf-8")
    assert out[0] == token  # at once
    assert out[1] == b""  # may be the last
    assert out[2] == end  # was not
    assert out[3].endswith(done)
    last = json.loads(out[3].split(b"\n\n")[0].removeprefix(b"data: "))
    assert last["stepgrpo"] == BLOCK
    assert last["usage"]["completion_tokens_details"]["reasoning_tokens"] == 30


def test_no_event_waits_before_a_sequence_has_ended() -> None:
    usage = b'data: {"choices":[],"usage":{"completion_tokens":4}}\n\n'
    running = SequenceRecord(0, "m", "none", 5)
    out, _, _ = serve([usage, usage], b"text/event-stream", records=(running,))
    assert out[:2] == [usage, usage]


def test_several_events_in_one_message_and_a_stream_that_breaks_off() -> None:
    end = b'data: {"choices":[{"finish_reason":"stop"}]}\n\n'
    out, _, _ = serve([end + b"data: [DONE]\n\n"], b"text/event-stream")
    assert b'"stepgrpo"' in out[0]
    broken, _, _ = serve([end], b"text/event-stream")
    assert b"".join(broken) == end


@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_that_is_cut_off_says_what_it_used_if_that_was_asked(asked: bool) -> None:
    token = b'data: {"id":"c","object":"o","created":1,"model":"m","choices":[{"delta":{}}]}\n\n'
    error = b'data: {"error": {"message": "over", "code": 503}}\n\n'
    done = b"data: [DONE]\n\n"
    request = json.dumps({"stream_options": {"include_usage": asked}}).encode()
    records = tuple(
        SequenceRecord(index, "m", "none", 5, delivered_tokens=9 + index) for index in (0, 1)
    )
    out, _, _ = serve(
        [token, error + done], b"text/event-stream", records=records, request=(request,)
    )
    if not asked:
        assert b"".join(out) == token + error + done
        return
    usage, rest = b"".join(out).removeprefix(token).split(b"\n\n", 1)
    assert rest == error + done
    assert json.loads(usage.removeprefix(b"data: ")) == {
        "id": "c",
        "object": "o",
        "created": 1,
        "model": "m",
        "choices": [],
        "usage": {"prompt_tokens": 5, "total_tokens": 24, "completion_tokens": 19},
    }


def test_a_stream_that_fails_before_its_first_token_has_no_usage() -> None:
    error = b'data: {"error": {"code": 503}}\n\n'
    request = b'{"stream_options": {"include_usage": true}}'
    out, _, _ = serve([error], b"text/event-stream", request=(request,))
    assert b"".join(out) == error


def test_a_response_of_the_responses_api_gets_it_inside_its_last_event() -> None:
    text = b'event: response.output_text.delta\ndata: {"delta":"event: response.completed\\n"}\n\n'
    usage = b'"usage":{"output_tokens":40,"output_tokens_details":{"reasoning_tokens":0}}'
    end = b'event: response.completed\ndata: {"response":{' + usage + b'},"type":"x"}\n\n'
    out, _, _ = serve([text, end], b"text/event-stream", path="/v1/responses")
    assert out[0] == text
    assert out[1].startswith(b"event: response.completed\ndata: ")
    event = data_of(out[1])
    assert event["type"] == "x"
    assert event["response"]["stepgrpo"] == BLOCK
    assert event["response"]["usage"]["output_tokens_details"] == {"reasoning_tokens": 30}


def test_a_stream_of_messages_gets_it_in_its_message_delta() -> None:
    delta = b'event: message_delta\ndata: {"delta":{},"usage":{"output_tokens":40}}\n\n'
    stop = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    out, _, _ = serve([delta, stop], b"text/event-stream", path="/llm/v1/messages")
    event = data_of(out[0])
    assert event["stepgrpo"] == BLOCK
    assert event["usage"]["output_tokens_details"] == {"reasoning_tokens": 30}
    assert out[1] == stop


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_whole_responses_of_other_apis_get_the_same(path: str) -> None:
    out, _, _ = serve([b'{"usage":{"output_tokens":40}}'], b"application/json", path=path)
    whole = json.loads(b"".join(out))
    assert whole["stepgrpo"] == BLOCK
    assert whole["usage"]["output_tokens_details"] == {"reasoning_tokens": 30}


def data_of(event: bytes) -> Any:
    return json.loads(event.partition(b"data: ")[2])


@pytest.mark.parametrize("records", [(), (RECORD,)])
def test_reasoning_has_both_its_names_in_chat(records: tuple[SequenceRecord, ...]) -> None:
    said = 'a "reasoning":"b" \\ \n é'
    message = {"reasoning": said, "content": '"reasoning":null'}
    raw = json.dumps({"choices": [{"message": message}]}, separators=(",", ":")).encode()
    out, headers, _ = serve([raw], b"application/json", records=records)
    both = message | {"reasoning_content": said}
    assert json.loads(b"".join(out))["choices"] == [{"message": both}]
    assert int(headers[b"content-length"]) == len(b"".join(out))
    out, _, _ = serve([b"data: " + raw + b"\n\n"], b"text/event-stream", records=records)
    assert data_of(out[0])["choices"] == [{"message": both}]
    none = b'{"message":{"reasoning":null}}'
    out, _, _ = serve([none], b"application/json", records=())
    assert json.loads(b"".join(out))["message"] == {"reasoning": None, "reasoning_content": None}
    out, _, _ = serve([none], b"application/json", records=(), path="/v1/completions")
    assert b"".join(out) == none


def test_several_sequences_are_listed() -> None:
    second = SequenceRecord(1, "m", "confidence", 5)
    second.outcome = Outcome(ExitReason.NATURAL, 4, 60, 0, 0, (), ExitReason.CONFIDENT)
    out, _, _ = serve(
        [b'{"usage":{"completion_tokens":1}}'], b"application/json", records=(second, RECORD)
    )
    amended = json.loads(b"".join(out))
    first, other = amended["stepgrpo"]["choices"]
    assert (first["index"], other["index"]) == (0, 1)
    assert other["shadow_reason"] == "confident"
    assert amended["usage"]["completion_tokens_details"]["reasoning_tokens"] == 90
