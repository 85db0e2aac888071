"""Responses and Messages: streams say what whole responses say, the block included."""

from typing import Any

import httpx
import openai
import pytest

from tests.support.chat import EXIT, body_of, chat, exited, sse, steady, vllms
from tests.support.models import PROBLEMS
from tests.support.servers import Server

pytestmark = [pytest.mark.integration, pytest.mark.slow]

POLICIES = [EXIT, {"exit_policy": "none"}]


def response(client: openai.OpenAI, index: int, xargs: Any, **options: Any) -> Any:
    return client.responses.create(
        model="demo-base",
        input=PROBLEMS[index].prompt,
        temperature=0,
        max_output_tokens=900,
        extra_body={"vllm_xargs": xargs, "seed": 0},
        **options,
    )


@pytest.mark.parametrize("xargs", POLICIES)
def test_responses(client: openai.OpenAI, xargs: Any) -> None:
    index, _ = exited(client)
    whole = response(client, index, xargs)
    *events, last = response(client, index, xargs, stream=True)
    assert last.type == "response.completed"
    assert not any(hasattr(getattr(event, "response", None), "stepgrpo") for event in events)
    streamed = last.response
    assert steady(streamed.stepgrpo) == steady(whole.stepgrpo)
    assert whole.stepgrpo["policy"] == xargs["exit_policy"]
    assert vllms(streamed.usage) == vllms(whole.usage)
    if xargs == EXIT:
        assert streamed.usage.stepgrpo.items() >= steady(streamed.stepgrpo).items()
    counted = whole.usage.output_tokens_details.reasoning_tokens
    assert counted == whole.stepgrpo["reasoning_tokens"] > 0
    deltas = {"reasoning_text": "", "output_text": ""}
    for event in events:
        kind = event.type.removeprefix("response.").removesuffix(".delta")
        if kind in deltas:
            deltas[kind] += event.delta
    said = {part.type: part.text for item in whole.output for part in item.content}
    assert shown(deltas, xargs) == shown(said, xargs)
    assert said == {part.type: part.text for item in streamed.output for part in item.content}
    message = chat(client, index, xargs).choices[0].message
    assert said == {"reasoning_text": message.reasoning, "output_text": message.content}


@pytest.mark.parametrize("xargs", POLICIES)
def test_messages(server: Server, client: openai.OpenAI, xargs: Any) -> None:
    index, _ = exited(client)
    body = body_of(index, xargs)
    url = f"{server.url}/v1/messages"
    whole = httpx.post(url, json=body, timeout=120).json()
    events = sse(httpx.post(url, json=body | {"stream": True}, timeout=120).text)
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    assert [event["type"] for event in events if "stepgrpo" in event] == ["message_delta"]
    assert steady(events[-2]["stepgrpo"]) == steady(whole["stepgrpo"])
    assert whole["stepgrpo"]["policy"] == xargs["exit_policy"]
    assert vllms(events[-2]["usage"]) == vllms(whole["usage"])
    if xargs == EXIT:
        assert whole["usage"]["stepgrpo"].items() >= steady(whole["stepgrpo"]).items()
    counted = whole["usage"]["output_tokens_details"]["reasoning_tokens"]
    assert counted == whole["stepgrpo"]["reasoning_tokens"] > 0
    deltas = {"thinking": "", "text": ""}
    for event in events:
        if event["type"] == "content_block_delta":
            kind = event["delta"]["type"].removesuffix("_delta")
            if kind in deltas:  # there are signatures, too
                deltas[kind] += event["delta"][kind]
    said = {part["type"]: part[part["type"]] for part in whole["content"]}
    assert shown(deltas, xargs) == shown(said, xargs)
    message = chat(client, index, xargs).choices[0].message
    assert said == {"thinking": message.reasoning, "text": message.content}


def shown(said: dict[str, str], xargs: Any) -> dict[str, str]:
    """vLLM 0.31 loses the white space of a delta that holds ``</think>`` and nothing but white
    space after it. Under policy `none` its deltas come as they are."""
    if xargs["exit_policy"] != "none":
        return said
    return {name: text.lstrip() for name, text in said.items()}


def test_reasoning_has_both_its_names(server: Server) -> None:
    body = {
        "model": "demo-base",
        "messages": [{"role": "user", "content": PROBLEMS[0].prompt}],
        "max_tokens": 900,
        "temperature": 0,
    }
    url = f"{server.url}/v1/chat/completions"
    message = httpx.post(url, json=body, timeout=120).json()["choices"][0]["message"]
    assert message["reasoning_content"] == message["reasoning"] != ""
    streamed = sse(httpx.post(url, json=body | {"stream": True}, timeout=120).text)
    deltas = [event["choices"][0]["delta"] for event in streamed]
    assert [d.get("reasoning_content") for d in deltas] == [d.get("reasoning") for d in deltas]
    said = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    assert said == message["reasoning_content"]
