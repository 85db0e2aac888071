"""Policies that abstain say why, on real vLLM."""

import dataclasses
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionAssistantMessageParam

from tests.support.chat import EXIT, chat, messages
from tests.support.engines import Machine
from tests.support.models import TOKENIZER
from tests.support.servers import Server

pytestmark = pytest.mark.integration


def test_ignore_eos_takes_its_tokens(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"max_tokens": 64, "extra_body": {"ignore_eos": True}}
    response = chat(client, **options)
    assert (response.stepgrpo["policy"], response.stepgrpo["abstained"]) == ("none", "ignore_eos")
    assert response.usage.completion_tokens == 64


def test_a_prompt_that_is_scored_is_not_answered_short(client: openai.OpenAI) -> None:
    prompt = TOKENIZER.apply_chat_template(messages(), tokenize=False, add_generation_prompt=True)
    scored: Any = client.completions.create(
        model="demo-base",
        prompt=prompt,
        max_tokens=900,
        temperature=0,
        extra_body={"vllm_xargs": EXIT, "prompt_logprobs": 0},
    )
    assert scored.stepgrpo["abstained"] == "prompt_logprobs"
    assert scored.stepgrpo["exit_reason"] == "natural"


def test_a_message_continued_inside_a_thought_is_the_callers(client: openai.OpenAI) -> None:
    begun: ChatCompletionAssistantMessageParam = {
        "role": "assistant",
        "content": "<think>\n47+8=55. Wait,",
    }
    response: Any = client.chat.completions.create(
        model="demo-base",
        messages=[*messages(), begun],
        temperature=0,
        max_tokens=64,
        extra_body={
            "vllm_xargs": EXIT,
            "continue_final_message": True,
            "add_generation_prompt": False,
        },
    )
    block = response.stepgrpo
    assert (block["policy"], block["abstained"]) == ("none", "continued_thinking")
    assert (block["exit_reason"], block["probes"]) == ("none", 0)
    assert block["reasoning_tokens"] == reasoning_tokens(response) > 0


def reasoning_tokens(response: Any) -> int:
    count: int = response.usage.completion_tokens_details.reasoning_tokens
    return count


def test_nothing_to_abstain_from_is_not_mentioned(client: openai.OpenAI) -> None:
    assert "abstained" not in chat(client).stepgrpo
    assert "abstained" not in chat(client, xargs=None, max_tokens=9).stepgrpo


def test_abstentions_are_counted_by_cause(server: Server, client: openai.OpenAI) -> None:
    before = server.metrics().get("stepgrpo_abstained_total", 0)
    chat(client, max_tokens=4, extra_body={"ignore_eos": True})
    assert server.metrics()["stepgrpo_abstained_total"] == before + 1


@pytest.mark.parametrize(
    ("options", "policy", "abstained"),
    [
        ({"tools": True}, "budget", "tools"),
        ({"tools": False}, "confidence+budget", None),
        ({"tools": True, "policy": "confidence+budget"}, "confidence+budget", None),
    ],
)
def test_tools_on_offer_leave_what_asks_for_no_answer(
    machine: Machine, options: dict[str, Any], policy: str, abstained: str | None
) -> None:
    ours = machine.ours(policy="confidence+budget")
    _, (record,) = machine.run(ours.ask(0, **({"policy": None} | options)))
    assert (record.policy, record.abstained) == (policy, abstained)
    assert (len(ours.border.probes) > 0) is (abstained is None)


def test_without_prefix_caching_a_budget_still_holds(machine: Machine) -> None:
    ours = machine.ours()
    engine = ours.engine
    engine._resolver = dataclasses.replace(engine._resolver, prefix_caching=False)
    _, (record,) = machine.run(ours.ask(0, "confidence+budget", xargs={"exit_budget_tokens": 10}))
    assert (record.policy, record.abstained) == ("budget", "no_prefix_caching")
    assert record.outcome.reason == "budget"
    assert ours.border.probes == []
