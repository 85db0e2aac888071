"""Thinking that the model, the user or the prompt leaves without a start, on real vLLM: what the
response shows as reasoning is counted, bounded and ended like any other."""

import json
from typing import Any

import httpx
import openai
import pytest

from tests.support.chat import joined
from tests.support.engines import ADAPTER, PROMPTS, Machine
from tests.support.models import END, PROBLEMS, START, TOKENIZER
from tests.support.servers import Server

pytestmark = pytest.mark.integration

BUDGET = 10
LONGEST = BUDGET + 2  # to the next line end, or 10 % more, and the closing's first token
UNOPENED: dict[str, dict[str, Any]] = {
    "biased against": {"logit_bias": {str(START): -100}},
    "a user's end": {"said": " </think>", "logit_bias": {str(START): -100}},
    "a user's start": {"said": " <think>", "logit_bias": {str(START): -100}},
    "continued": {
        "begun": "First",
        "continue_final_message": True,
        "add_generation_prompt": False,
    },
}


def body(said: str = "", begun: str = "", **options: Any) -> dict[str, Any]:
    content = PROBLEMS[0].prompt + said
    messages = [{"role": "user", "content": content}]
    if begun:
        messages.append({"role": "assistant", "content": begun})
    plain = {"model": "demo-base", "messages": messages, "temperature": 0, "max_tokens": 400}
    return plain | {"seed": 0} | options


def post(server: Server, path: str, asked: dict[str, Any]) -> Any:
    answer = httpx.post(f"{server.url}/v1/{path}", json=asked, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()


def counts(response: Any) -> tuple[int, int]:
    """Reasoning tokens by usage and by the block."""
    block, usage = response["stepgrpo"], response["usage"]
    details = usage.get("completion_tokens_details") or usage["output_tokens_details"]
    by_block = sum(each["reasoning_tokens"] for each in block.get("choices", [block]))
    return details["reasoning_tokens"], by_block


@pytest.mark.parametrize("asked", UNOPENED.values(), ids=UNOPENED)
def test_chats_count_and_bound_what_they_show(server: Server, asked: dict[str, Any]) -> None:
    free = post(server, "chat/completions", body(**asked))
    shown = free["choices"][0]["message"]["reasoning"]
    assert shown
    by_usage, by_block = counts(free)
    assert by_usage == by_block == len(TOKENIZER.encode(shown))
    for policy in ({}, {"exit_policy": "confidence"}, {"exit_policy": "repetition"}):
        more: dict[str, Any] = {"vllm_xargs": policy, "thinking_token_budget": BUDGET}
        bounded = post(server, "chat/completions", body(**asked, **more))
        by_usage, by_block = counts(bounded)
        assert 0 < by_usage == by_block <= LONGEST
        assert bounded["choices"][0]["message"]["content"]


def test_streams_several_choices_and_responses_alike(server: Server, client: openai.OpenAI) -> None:
    asked: dict[str, Any] = UNOPENED["biased against"] | {"thinking_token_budget": BUDGET}
    whole = post(server, "chat/completions", body(**asked))
    extra = {"logit_bias": asked["logit_bias"], "thinking_token_budget": BUDGET}
    parts = joined(
        client.chat.completions.create(
            **body(stream=True, stream_options={"include_usage": True}), extra_body=extra
        )
    )
    message = whole["choices"][0]["message"]
    assert (parts["reasoning"], parts["content"]) == (message["reasoning"], message["content"])
    assert counts({"stepgrpo": parts["block"], "usage": parts["usage"].model_dump()}) == counts(
        whole
    )
    three = post(server, "chat/completions", body(n=3, **asked | {"temperature": 0.6}))
    assert all(0 < each["reasoning_tokens"] <= LONGEST for each in three["stepgrpo"]["choices"])
    assert counts(three)[0] == counts(three)[1]
    response = post(
        server,
        "responses",
        {
            "model": "demo-base",
            "input": PROBLEMS[0].prompt,
            "temperature": 0,
            "max_output_tokens": 400,
            **asked,
        },
    )
    by_usage, by_block = counts(response)
    assert 0 < by_usage == by_block <= LONGEST


@pytest.mark.parametrize("policy", [{}, {"exit_policy": "confidence"}])
def test_completions_of_a_templates_prompt_are_bounded(
    server: Server, policy: dict[str, str]
) -> None:
    prompt = TOKENIZER.decode(PROMPTS[0], skip_special_tokens=False)
    asked = {
        "model": "demo-base",
        "prompt": prompt,
        "temperature": 0,
        "max_tokens": 400,
        "logit_bias": {str(START): -100},
        "return_token_ids": True,
        "vllm_xargs": policy,
    }
    free = post(server, "completions", asked | {"vllm_xargs": {"exit_policy": "none"}})
    thought = free["choices"][0]["token_ids"].index(END)
    assert free["stepgrpo"]["reasoning_tokens"] == thought > LONGEST
    bounded = post(server, "completions", asked | {"thinking_token_budget": BUDGET})
    assert bounded["choices"][0]["token_ids"].index(END) <= LONGEST


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("adapter", [False, True])
def test_a_client_of_the_engine_gets_the_same(machine: Machine, adapter: bool, n: int) -> None:
    ours = machine.ours(policy="none")
    options = {"lora_request": ADAPTER} if adapter else {}
    asked: dict[str, Any] = {"options": options, "n": n, "logit_bias": {START: -100}}
    asked |= {"temperature": 0.6, "seed": 5}
    _, free = machine.run(ours.ask(0, None, **asked))
    ids, bounded = machine.run(ours.ask(0, "budget", xargs={"exit_budget_tokens": BUDGET}, **asked))
    for before, after, said in zip(free, bounded, ids, strict=True):
        assert before.outcome.reasoning_tokens > LONGEST
        assert after.outcome.reason == "budget"
        assert after.outcome.reasoning_tokens == said.index(END) <= LONGEST


@pytest.mark.parametrize("stop", [[], ["answer is"]])
def test_a_client_that_has_read_enough_gets_its_answer(server: Server, stop: list[str]) -> None:
    asked = body(
        stream=True, stop=stop, logit_bias={str(START): -100, str(END): -100}, max_tokens=900
    )
    asked |= {"stream_options": {"include_usage": True}}
    events: list[Any] = []
    with (
        httpx.Client(base_url=server.url, timeout=120) as client,
        client.stream("POST", "/v1/chat/completions", json=asked) as stream,
    ):
        for line in filter(lambda each: each.startswith("data: {"), stream.iter_lines()):
            events.append(json.loads(line.removeprefix("data: ")))
            if len(events) == 8:
                path = f"/v1/chat/completions/{events[0]['id']}/finish-thinking"
                assert client.post(path).json()["sequences"] == 1
    block = events[-1]["stepgrpo"]
    assert block["exit_reason"] == "client"
    assert any(each["choices"] and each["choices"][0]["delta"].get("content") for each in events)


def test_a_bound_on_a_thought_of_the_callers_is_refused(server: Server) -> None:
    asked = UNOPENED["continued"] | {"begun": "<think>\nFirst", "thinking_token_budget": BUDGET}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body(**asked), timeout=120)
    assert answer.status_code == 400
    assert "thinking_token_budget" in answer.text


@pytest.mark.parametrize("policy", ["none", "confidence"])
@pytest.mark.parametrize("hidden", [False, True])
def test_an_answer_that_the_prompt_has_begun_is_content_whole_or_streamed(
    server: Server, client: openai.OpenAI, policy: str, hidden: bool
) -> None:
    asked = UNOPENED["continued"] | {"begun": "<think>\n47+8=55</think>\n\nThe final"}
    extra = {name: asked.pop(name) for name in ("continue_final_message", "add_generation_prompt")}
    extra |= {"vllm_xargs": {"exit_policy": policy}, "include_reasoning": not hidden}
    whole = post(server, "chat/completions", body(**asked, **extra))
    message = whole["choices"][0]["message"]
    parts = joined(
        client.chat.completions.create(
            **body(**asked, stream=True, stream_options={"include_usage": True}), extra_body=extra
        )
    )
    assert message["content"] == parts["content"] != ""
    assert (message["reasoning"] or "", parts["reasoning"]) == ("", "")
    assert counts(whole) == (0, 0)
    assert parts["usage"].completion_tokens_details.reasoning_tokens == 0
