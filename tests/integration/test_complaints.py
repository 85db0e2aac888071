"""What users suffer from elsewhere, one test each: the complaint, with its thread, and what we do.

Each shows the complaint under policy `none`, as vLLM answers, where vLLM still has it.
"""

import json
import re
import time
from typing import Any

import httpx
import openai
import pytest

from tests.support.chat import EXIT, HASTY, chat, complete, joined, sse, thinking_prompt, vllms
from tests.support.finishing import NEVER_ENDS, chat_body, wished
from tests.support.forms import BIAS, JSON, TOOLS, check_json
from tests.support.models import END, PROBLEMS, TOKENIZER
from tests.support.servers import Server

pytestmark = pytest.mark.integration

ANSWER = re.compile(r"\s*The final answer is \\boxed\{-?\d+\}\.")


def test_1_thinking_eats_max_tokens_and_no_answer_comes(client: openai.OpenAI) -> None:
    """vllm#15418. An answer's reserve is kept."""
    eaten = answered = 0
    for index in range(8):
        plain = chat(client, index, None, max_tokens=100)
        if plain.choices[0].finish_reason == "stop":
            continue
        eaten += plain.choices[0].message.content is None
        for policy in ("budget", "confidence+budget"):
            ours = chat(client, index, {"exit_policy": policy}, max_tokens=100)
            assert ours.usage.completion_tokens <= 100
            assert ANSWER.fullmatch(ours.choices[0].message.content)
            answered += ours.choices[0].finish_reason == "stop"
    assert eaten
    assert answered


def test_2_the_end_of_the_turn_inside_the_thinking_gives_empty_content(
    client: openai.OpenAI,
) -> None:
    """vllm#55420, vllm#52640. It is closed and answered."""
    plain = chat(client, 1, None, logit_bias=HASTY)
    assert plain.choices[0].finish_reason == "stop"
    assert not plain.choices[0].message.content
    ours = chat(client, 1, EXIT | {"exit_threshold": 1.0}, logit_bias=HASTY)
    assert ours.stepgrpo["exit_reason"] == "eos_in_thinking"
    assert "\\boxed{" in ours.choices[0].message.content
    assert ours.choices[0].message.reasoning.startswith(plain.choices[0].message.reasoning)


@pytest.mark.parametrize(
    "asked",
    [
        {"vllm_xargs": {"exit_policy": "budget", "exit_budget_tokens": 20}},
        {"thinking_token_budget": 20},
    ],
)
def test_3_a_budget_is_accepted_and_ignored(client: openai.OpenAI, asked: dict[str, Any]) -> None:
    """vllm#50166, sglang#25536. It holds, up to the next line end or a tenth later."""
    for index in range(4):
        full = chat(client, index, None)
        assert full.stepgrpo["reasoning_tokens"] > 40
        ours = chat(client, index, None, extra_body=asked)
        assert ours.stepgrpo["exit_reason"] == "budget"
        # A tenth later, and the newline before </think>.
        assert ours.stepgrpo["reasoning_tokens"] <= 22 + 1
        assert ours.choices[0].message.content


def test_4_a_close_is_forced_into_a_tool_call(client: openai.OpenAI) -> None:
    """vllm#44676. Nothing is closed inside one, however eager the policies are."""
    eager = {"exit_policy": "confidence+budget+repetition", "exit_threshold": 0.0}
    for index, budget in ((0, 4), (1, 20), (2, 60), (3, 900)):
        options = TOOLS | {"tool_choice": "required", "logit_bias": BIAS}
        options |= {"extra_body": {"return_token_ids": True}}
        ours = chat(client, index, eager | {"exit_budget_tokens": budget}, **options)
        [call] = ours.choices[0].message.tool_calls
        check_json(call.function.arguments)
        ids = ours.choices[0].token_ids
        assert ids.count(END) == 1
        assert "<tool_call>" not in TOKENIZER.decode(ids[: ids.index(END)])
        assert TOKENIZER.decode(ids[ids.index(END) + 1 :]).startswith("<tool_call>")


def test_5_an_abrupt_cut_leaks_reasoning_into_the_answer(client: openai.OpenAI) -> None:
    """vllm PR 45727. The answer is an answer, and the reasoning ends where a step does."""
    reasons = set()
    for index in range(12):
        for xargs in (EXIT, {"exit_policy": "budget", "exit_budget_tokens": 10 + index}):
            message = (ours := chat(client, index, xargs)).choices[0].message
            reasons.add(ours.stepgrpo["exit_reason"])
            assert ANSWER.fullmatch(message.content), message.content
            assert "</think>" not in message.reasoning
            assert "boxed" not in message.reasoning
            if ours.stepgrpo["exit_reason"] == "confident":
                assert message.reasoning.endswith("\n")
                assert not message.reasoning.rstrip().endswith(("Wait", "Alternatively"))
    assert {"confident", "budget"} <= reasons


def test_6_stream_and_non_stream_disagree(server: Server, client: openai.OpenAI) -> None:
    """vllm#39885, vllm#53284."""
    for index in range(6):
        options = {"temperature": 1.0, "seed": index, "extra_body": {"return_token_ids": True}}
        whole = chat(client, index, **options)
        usage = {"include_usage": True}
        parts = joined(chat(client, index, stream=True, stream_options=usage, **options))
        choice = whole.choices[0]
        assert parts["ids"] == choice.token_ids
        assert (parts["reasoning"], parts["content"]) == (
            choice.message.reasoning,
            choice.message.content or "",
        )
        assert parts["finish_reason"] == choice.finish_reason
        assert vllms(parts["usage"]) == vllms(whole.usage)
        assert parts["block"]["exit_reason"] == whole.stepgrpo["exit_reason"]
    del server


@pytest.mark.slow
def test_7_reasoning_tokens_are_missing_or_zero(server: Server, client: openai.OpenAI) -> None:
    """vllm PR 49743, llama.cpp#27971. They are counted from the ids, on every endpoint."""
    for xargs in (EXIT, {"exit_policy": "none"}):
        opened = complete(client, thinking_prompt(1), xargs)  # the prompt holds <think>
        counted = opened.choices[0].token_ids.index(END)
        assert opened.stepgrpo["reasoning_tokens"] == counted > 0
        assert opened.usage.completion_tokens_details.reasoning_tokens == counted
        message = {"role": "user", "content": PROBLEMS[1].prompt}
        common = {"model": "demo-base", "temperature": 0, "vllm_xargs": xargs, "seed": 0}
        counts = set()
        for path, body, details in (
            ("chat/completions", {"messages": [message]}, "completion_tokens_details"),
            ("responses", {"input": message["content"]}, "output_tokens_details"),
            ("messages", {"messages": [message], "max_tokens": 900}, "output_tokens_details"),
        ):
            for stream in ({}, {"stream": True, "stream_options": {"include_usage": True}}):
                if path != "chat/completions":
                    stream.pop("stream_options", None)
                url = f"{server.url}/v1/{path}"
                answer = httpx.post(url, json=common | body | stream, timeout=120)
                assert answer.status_code == 200, answer.text
                usage = last_usage(answer.text)
                counts.add(usage[details]["reasoning_tokens"])
        assert len(counts) == 1
        assert counts.pop() > 0


def last_usage(text: str) -> dict[str, Any]:
    """Of a whole response or a stream."""
    events = sse(text) or [json.loads(text)]
    holders = [event.get("response", event) for event in events]
    usages: list[dict[str, Any]] = [each["usage"] for each in holders if each.get("usage")]
    return usages[-1]


def test_8_a_json_schema_switches_the_thinking_off_or_breaks(client: openai.OpenAI) -> None:
    """vllm#18255, vllm#47027. Thinking is free, the exit works, and the answer is JSON."""
    reasons = set()
    for index in range(6):
        ours = chat(client, index, response_format=JSON)
        assert len(ours.choices[0].message.reasoning) > 10
        check_json(ours.choices[0].message.content)
        reasons.add(ours.stepgrpo["exit_reason"])
    assert "confident" in reasons


@pytest.mark.parametrize("xargs", [EXIT | {"exit_threshold": 1.0}, {"exit_policy": "none"}])
def test_9_answer_now_while_it_streams(server: Server, xargs: Any) -> None:
    """llama.cpp#23944. The thinking is closed where it is, and the answer comes."""
    body = chat_body(logit_bias=NEVER_ENDS, vllm_xargs=xargs)  # thinks on and on
    found = wished(server, body)
    assert [answer.status_code for answer in found.answers] == [200]
    assert found.block["exit_reason"] == "client"
    assert found.ids.count(END) == 1
    assert found.text("content").strip()


@pytest.mark.slow
def test_10_fewer_tokens_but_not_less_time(server: Server, client: openai.OpenAI) -> None:
    """DEER#8: every round waits and starts again. Here the stream goes on while a probe runs, so
    the steps up to the answer are fewer, those past the cut included, and so is the time."""
    spent, steps = {"none": 0.0, "confidence": 0.0}, {"none": 0.0, "confidence": 0.0}
    for index in range(12):
        for policy in spent:
            before = server.metrics()
            started = time.monotonic()
            chat(client, index, {"exit_policy": policy})
            spent[policy] += time.monotonic() - started
            server.wait_idle(60)
            after = server.metrics()
            generated = "vllm:generation_tokens_total", "stepgrpo_probe_tokens_total"
            total, probes = (after.get(name, 0) - before.get(name, 0) for name in generated)
            steps[policy] += total - probes  # probes run beside the stream
    assert steps["confidence"] < 0.8 * steps["none"]
    assert spent["confidence"] < spent["none"]
