"""Events in the streams of real vLLM: they tell what the block reports, and change nothing else."""

from typing import Any

import openai
import pytest

from tests.support.chat import EXIT, chat, exited, joined

pytestmark = pytest.mark.integration
ASKED = EXIT | {"exit_events": True}


def events_of(stream: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return the events of a stream, and its chunks."""
    chunks = list(stream)
    return [e for chunk in chunks for e in getattr(chunk, "stepgrpo_events", None) or ()], chunks


def test_they_tell_the_probes_and_the_exit_that_the_block_reports(client: openai.OpenAI) -> None:
    index, _ = exited(client)
    events, chunks = events_of(chat(client, index, ASKED, stream=True))
    block = chunks[-1].stepgrpo
    probes = [event for event in events if event["event"] == "probe"]
    (cut,) = [event for event in events if event["event"] == "cut"]
    assert [event["result"] for event in probes] == ["declined"] * (len(probes) - 1) + ["fired"]
    assert probes[-1]["confidence"] == block["confidence"]
    assert cut["reason"] == block["exit_reason"] == "confident"
    assert 0 < probes[-1]["at"] <= probes[-1]["answered"] <= cut["at"]
    assert {event["index"] for event in events} == {0}
    assert joined(chunks)["reasoning"] == joined(chat(client, index, stream=True))["reasoning"]


def test_under_policy_none_they_tell_steps_and_the_end(client: openai.OpenAI) -> None:
    xargs = {"exit_policy": "none", "exit_events": True}
    events, chunks = events_of(chat(client, 0, xargs, stream=True))
    steps = [event for event in events if event["event"] == "step"]
    assert [event["steps"] for event in steps] == list(range(2, chunks[-1].stepgrpo["steps"] + 1))
    assert {event["marker"] for event in steps} <= {"Wait", "Alternatively"}
    assert [event["event"] for event in events if event not in steps] == ["thinking_end"]


def test_the_timeline_is_kept_with_the_response(client: openai.OpenAI) -> None:
    events, chunks = events_of(chat(client, 0, ASKED, stream=True))
    kept: Any = client.get(f"/stepgrpo/responses/{chunks[0].id}", cast_to=object)
    listed: Any = client.get("/stepgrpo/responses?limit=1", cast_to=object)
    assert listed == {"object": "list", "data": [kept]}
    assert kept["stepgrpo"] == chunks[-1].stepgrpo
    told = [event for event in events if event["event"] == "probe"]
    probes = [event for event in kept["timeline"] if event["event"] == "probe"]
    assert [event for event in probes if event["result"] != "unused"] == told
    assert (kept["timeline"][0]["event"], kept["timeline"][-1]["event"]) == ("arrived", "end")
