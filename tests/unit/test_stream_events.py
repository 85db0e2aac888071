"""Events in a stream: who gets them, in which chunk, and what is refused."""

import json
from typing import Any

import pytest

from service.http.responses import _with_events
from service.params.apis import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from tests.support.chat import sse
from tests.support.service.application import PROPER, Application


def asked(endpoint: str, value: Any, **more: Any) -> Any:
    application = Application("none")
    try:
        body = PROPER[endpoint] | {"vllm_xargs": {"exit_events": value}} | more
        return application.ask(endpoint, body)
    finally:
        application.close()


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
def test_each_api_sends_them_in_its_own_events(endpoint: str) -> None:
    response = asked(endpoint, True, stream=True)
    assert response.status == 200
    chunks = sse(response.text)
    (events,) = [chunk["stepgrpo_events"] for chunk in chunks if "stepgrpo_events" in chunk]
    (end,) = events
    assert (end["event"], end["reason"], end["index"]) == ("thinking_end", "natural", 0)
    assert end["at"] >= 0
    silent = sse(asked(endpoint, False, stream=True).text)
    assert len(silent) == len(chunks)
    assert not any("stepgrpo_events" in chunk for chunk in silent)


@pytest.mark.parametrize("value", ["yes", 2, [True]])
def test_anything_but_a_switch_is_refused(value: Any) -> None:
    refused = asked(CHAT, value, stream=True)
    assert (refused.status, refused.error["param"]) == (400, "vllm_xargs.exit_events")
    assert "use true or false" in refused.error["message"]


def test_without_a_stream_they_are_refused_with_the_remedy() -> None:
    refused = asked(CHAT, True)
    assert (refused.status, refused.error["param"]) == (400, "vllm_xargs.exit_events")
    assert "set 'stream' to true" in refused.error["message"]
    assert asked(CHAT, False).status == 200


def test_a_switch_in_a_wrong_place_is_refused_with_the_right_one() -> None:
    application = Application("none")
    refused = application.ask(CHAT, PROPER[CHAT] | {"exit_events": True, "stream": True})
    application.close()
    assert refused.status == 400
    assert "'vllm_xargs': {'exit_events'" in refused.error["message"]


def test_events_become_a_field_of_the_first_object_of_the_chunk() -> None:
    events: list[dict[str, Any]] = [{"event": "step", "marker": "}\n\nWait"}]
    body = b'data: {"a":{"b":1}}\n\ndata: {"c":2}\n\n'
    first, second = sse(_with_events(body, events).decode())
    assert first == {"a": {"b": 1}, "stepgrpo_events": [{"event": "step", "marker": "}\n\nWait"}]}
    assert (second, events) == ({"c": 2}, [])


@pytest.mark.parametrize("body", [b"data: [DONE]\n\n", b'data: {"incomplete":', b": comment\n\n"])
def test_a_chunk_without_an_object_leaves_them_for_the_next_one(body: bytes) -> None:
    events: list[dict[str, Any]] = [{"event": "step"}]
    assert _with_events(body, events) == body
    assert json.dumps(events) == '[{"event": "step"}]'
