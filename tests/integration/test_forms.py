"""Answers whose form a schema, a choice or a tool prescribes, after thinking that was ended."""

import json
from typing import Any

import httpx
import openai
import pytest

from tests.support.chat import EXIT, body_of, chat, exited, joined, sse, steady
from tests.support.forms import BIAS, JSON, SCHEMA, TOOLS, check_json
from tests.support.models import PROBLEMS
from tests.support.servers import Server

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.mark.parametrize("xargs", [EXIT, None])
def test_json_schema_after_thinking(client: openai.OpenAI, xargs: Any) -> None:
    index, _ = exited(client)
    whole = chat(client, index, xargs, response_format=JSON)
    parts = joined(chat(client, index, xargs, response_format=JSON, stream=True))
    message = whole.choices[0].message
    check_json(message.content)
    assert (parts["content"], parts["reasoning"]) == (message.content, message.reasoning)
    assert whole.choices[0].finish_reason == parts["finish_reason"] == "stop"
    assert whole.stepgrpo["exit_reason"] == ("confident" if xargs else "natural")
    assert steady(parts["block"]) == steady(whole.stepgrpo)


@pytest.mark.parametrize(
    ("form", "allowed"),
    [
        ({"choice": ["58", "59"]}, {"58", "59"}),
        ({"regex": "(yes|no)!"}, {"yes!", "no!"}),
        ({"json": {"enum": ["a", "b"]}}, {'"a"', '"b"'}),
    ],
)
def test_structured_outputs_after_an_exit(
    client: openai.OpenAI, form: Any, allowed: set[str]
) -> None:
    index, _ = exited(client)
    whole = chat(client, index, extra_body={"structured_outputs": form})
    assert whole.choices[0].message.content in allowed
    assert whole.stepgrpo["exit_reason"] == "confident"


def test_thinking_stays_free_until_the_exit(client: openai.OpenAI) -> None:
    index, free = exited(client)
    bound = chat(client, index, response_format=JSON)
    assert bound.choices[0].message.reasoning == free.choices[0].message.reasoning
    assert bound.stepgrpo["confidence"] == free.stepgrpo["confidence"]


def test_each_of_several_sequences_gets_its_form(client: openai.OpenAI) -> None:
    several = chat(client, n=3, temperature=0.8, seed=5, response_format=JSON)
    for choice in several.choices:
        check_json(choice.message.content)
    assert "confident" in [block["exit_reason"] for block in several.stepgrpo["choices"]]


def test_a_grammar_that_starts_at_once_leaves_nothing_to_exit(client: openai.OpenAI) -> None:
    """vLLM starts it so when the response is to hold no reasoning."""
    response = chat(client, response_format=JSON, extra_body={"include_reasoning": False})
    assert response.choices[0].finish_reason == "stop"
    assert (response.stepgrpo["policy"], response.stepgrpo["probes"]) == ("none", 0)


def test_json_schema_in_completions(client: openai.OpenAI) -> None:
    response: Any = client.completions.create(
        model="demo-base",
        prompt=f"<|im_start|>user\n{PROBLEMS[0].prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n",
        max_tokens=900,
        temperature=0,
        extra_body={"vllm_xargs": EXIT, "structured_outputs": {"json": SCHEMA}},
    )
    assert response.stepgrpo["exit_reason"] == "confident"
    check_json(response.choices[0].text.partition("</think>")[2])


@pytest.mark.parametrize("xargs", [EXIT, None])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "give"}}])
def test_tools_after_thinking(client: openai.OpenAI, choice: Any, xargs: Any) -> None:
    index, _ = exited(client)
    options = TOOLS | {"tool_choice": choice, "logit_bias": BIAS}
    whole = chat(client, index, xargs, **options)
    [call] = whole.choices[0].message.tool_calls
    assert call.function.name == "give"
    check_json(call.function.arguments)
    assert whole.stepgrpo["exit_reason"] == ("confident" if xargs else "natural")
    name, arguments, reasoning = "", "", ""
    for chunk in chat(client, index, xargs, stream=True, **options):
        for streamed in chunk.choices:
            reasoning += getattr(streamed.delta, "reasoning", None) or ""
            for part in streamed.delta.tool_calls or []:
                name += part.function.name or ""
                arguments += part.function.arguments or ""
    assert name == "give"
    assert json.loads(arguments) == json.loads(call.function.arguments)
    assert reasoning == whole.choices[0].message.reasoning
    assert steady(chunk.stepgrpo) == steady(whole.stepgrpo)


def test_tools_that_are_offered_and_not_needed(client: openai.OpenAI) -> None:
    index, plain = exited(client)
    offered = chat(client, index, **TOOLS)
    assert not offered.choices[0].message.tool_calls
    assert offered.choices[0].message.content == plain.choices[0].message.content


def test_forms_in_responses(client: openai.OpenAI) -> None:
    index, _ = exited(client)
    form: Any = {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}
    options: dict[str, Any] = {
        "model": "demo-base",
        "input": PROBLEMS[index].prompt,
        "temperature": 0,
        "extra_body": {"vllm_xargs": EXIT},
    }
    whole = client.responses.create(text=form, **options)
    check_json(whole.output_text)
    assert whole.stepgrpo["exit_reason"] == "confident"
    *_, last = client.responses.create(text=form, stream=True, **options)
    assert last.response.output_text == whole.output_text


def test_forms_in_messages(server: Server, client: openai.OpenAI) -> None:
    index, _ = exited(client)
    form = {"format": {"type": "json_schema", "schema": SCHEMA}}
    body = body_of(index, output_config=form)
    url = f"{server.url}/v1/messages"
    whole = httpx.post(url, json=body, timeout=120).json()
    said = {part["type"]: part[part["type"]] for part in whole["content"]}
    check_json(said["text"])
    assert whole["stepgrpo"]["exit_reason"] == "confident"
    events = sse(httpx.post(url, json=body | {"stream": True}, timeout=120).text)
    pieces = [event["delta"].get("text", "") for event in events if "delta" in event]
    assert "".join(pieces) == said["text"]
    assert steady(events[-2]["stepgrpo"]) == steady(whole["stepgrpo"])
