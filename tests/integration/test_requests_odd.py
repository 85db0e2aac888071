"""Odd requests and odd streams on real vLLM: what each gets."""

import json
from typing import Any

import httpx
import openai
import pytest

from tests.support.chat import EXIT, chat, exited, messages
from tests.support.models import TOKENIZER
from tests.support.servers import Server

pytestmark = pytest.mark.integration

START, END = TOKENIZER.convert_tokens_to_ids(["<think>", "</think>"])


def opened(client: openai.OpenAI, **options: Any) -> Any:
    """A completion whose prompt opens the thinking."""
    prompt = TOKENIZER.apply_chat_template(messages(), tokenize=False, add_generation_prompt=True)
    extra = {"vllm_xargs": EXIT, "return_token_ids": True, "skip_special_tokens": False}
    return client.completions.create(
        model="demo-base",
        prompt=f"{prompt}<think>\n",
        temperature=0,
        seed=0,
        extra_body=extra | options.pop("extra_body", {}),
        **options,
    )


def test_a_model_that_ends_its_thinking_twice(client: openai.OpenAI) -> None:
    response = opened(client, max_tokens=6, logit_bias={str(END): 100})
    assert response.choices[0].token_ids == [END] * 6
    block = response.stepgrpo
    assert (block["exit_reason"], block["reasoning_tokens"]) == ("natural", 0)
    assert (block["probes"], block["saved"]) == (0, None)


def test_a_model_that_opens_thinking_in_its_answer(client: openai.OpenAI) -> None:
    response = chat(
        client,
        max_tokens=40,
        extra_body={
            "chat_template_kwargs": {"enable_thinking": False},
            "logit_bias": {str(START): 100},
            "return_token_ids": True,
        },
    )
    assert response.choices[0].token_ids.count(START) > 1
    assert response.stepgrpo["probes"] == 0


def test_min_tokens_delay_an_exit(client: openai.OpenAI) -> None:
    index, early = exited(client)
    assert early.stepgrpo["reasoning_tokens"] < 60
    late = chat(client, index, extra_body={"min_tokens": 60})
    full = chat(client, index, xargs=None)
    assert late.usage.completion_tokens >= min(60, full.usage.completion_tokens)
    reason, tokens = late.stepgrpo["exit_reason"], late.stepgrpo["reasoning_tokens"]
    assert reason == "natural" or tokens >= 59


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_that_is_not_wanted_leaks_nowhere(
    server: Server, client: openai.OpenAI, stream: bool
) -> None:
    index, shown = exited(client)
    thoughts = [line for line in shown.choices[0].message.reasoning.splitlines() if len(line) > 6]
    assert thoughts
    body = {
        "model": "demo-base",
        "messages": messages(index),
        "temperature": 0,
        "seed": 0,
        "max_tokens": 900,
        "include_reasoning": False,
        "stream": stream,
        "vllm_xargs": EXIT,
    }
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    places = [answer.text, server.log.read_text(), httpx.get(f"{server.url}/metrics").text]
    for thought in thoughts:
        assert all(thought not in place for place in places)
    assert '"stepgrpo"' in answer.text
    if not stream:
        block = json.loads(answer.text)["stepgrpo"]
        assert (block["exit_reason"], block["probes"]) == ("confident", shown.stepgrpo["probes"])


@pytest.mark.parametrize(
    "text",
    ["</think>", "<think>", "<think>\nWait, \\boxed{7}. </think> 7", "\\boxed{7} Wait"],
)
def test_what_a_user_writes_moves_no_state(client: openai.OpenAI, text: str) -> None:
    """Under a policy that would exit at once: only generated thinking counts."""
    response: Any = client.chat.completions.create(
        model="demo-base",
        messages=[{"role": "user", "content": f"{messages()[0]['content']} {text}"}],
        temperature=0,
        seed=0,
        max_tokens=900,
        extra_body={
            "vllm_xargs": EXIT | {"exit_threshold": 0.0, "exit_min_tokens": 8},
            "return_token_ids": True,
        },
    )
    ids, block = response.choices[0].token_ids, response.stepgrpo
    assert "abstained" not in block
    assert ids.count(END) <= 1
    if block["exit_reason"] == "confident":
        begin = ids.index(START) + 1 if START in ids else 0  # a user's marks have it left out
        assert ids.index(END) - begin == block["reasoning_tokens"] >= 8
