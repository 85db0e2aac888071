"""What vLLM's API offers works with exits: each feature, streamed and whole alike."""

import asyncio
from typing import Any

import openai
import pytest
from vllm.sampling_params import RequestOutputKind

from tests.support.chat import EXIT, HASTY, chat, complete, exited, steady, thinking_prompt, vllms
from tests.support.engines import ADAPTER, Machine, Ours
from tests.support.models import END, EOS, PROBLEMS, TOKENIZER

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CLOSED = {"exit_policy": "budget", "exit_budget_tokens": 8}


def merged(stream: Any) -> dict[int, dict[str, Any]]:
    """What the choices of a stream add up to."""
    whole: dict[int, dict[str, Any]] = {}
    for chunk in stream:
        for choice in chunk.choices:
            parts = whole.setdefault(
                choice.index, {"text": "", "reasoning": "", "ids": [], "logprobs": []}
            )
            delta = getattr(choice, "delta", choice)
            parts["text"] += getattr(delta, "content", None) or getattr(delta, "text", None) or ""
            parts["reasoning"] += getattr(delta, "reasoning", None) or ""
            parts["ids"] += getattr(choice, "token_ids", None) or []
            parts["logprobs"] += logprobs_of(choice)
            parts["end"] = choice.finish_reason
        block: Any = getattr(chunk, "stepgrpo", None)
    whole[-1] = steadied(block)
    return whole


def summed(response: Any) -> dict[int, dict[str, Any]]:
    """The same of a whole response."""
    whole: dict[int, dict[str, Any]] = {
        choice.index: {
            "text": (choice.message.content if hasattr(choice, "message") else choice.text) or "",
            "reasoning": (choice.message.reasoning if hasattr(choice, "message") else "") or "",
            "ids": choice.token_ids or [],
            "logprobs": logprobs_of(choice),
            "end": choice.finish_reason,
        }
        for choice in response.choices
    }
    whole[-1] = steadied(response.stepgrpo)
    return whole


def steadied(block: dict[str, Any]) -> dict[str, Any]:
    blocks = [steady(each) for each in block.get("choices", [block])]
    return {"blocks": blocks, "policy": block["policy"]}


def logprobs_of(choice: Any) -> list[float]:
    if not choice.logprobs:
        return []
    if hasattr(choice.logprobs, "content"):
        return [entry.logprob for entry in choice.logprobs.content]
    return list(choice.logprobs.token_logprobs)


def check_equal(stream: Any, response: Any) -> dict[int, dict[str, Any]]:
    streamed, whole = merged(stream), summed(response)
    for index, parts in whole.items():
        logprobs = parts.get("logprobs", [])
        assert streamed[index].get("logprobs", []) == pytest.approx(logprobs, abs=1e-3)
        assert len(logprobs) in (0, len(parts.get("ids", [])))
        streamed[index] |= {"logprobs": logprobs} if logprobs else {}
    assert streamed == whole
    return whole


def test_several_sequences_with_log_probs(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {
        "n": 3,
        "temperature": 0.8,
        "seed": 5,
        "logprobs": True,
        "top_logprobs": 1,
    }
    ids: dict[str, Any] = {"extra_body": {"return_token_ids": True}}
    response = chat(client, 1, **options, **ids)
    whole = check_equal(chat(client, 1, stream=True, **options, **ids), response)
    assert len(whole.pop(-1)["blocks"]) == len(whole) == 3
    assert len({parts["reasoning"] for parts in whole.values()}) > 1
    assert all(parts["ids"].count(END) == 1 for parts in whole.values())
    for index in range(3):  # each is what it is alone: vLLM's seeds count up
        alone = chat(client, 1, **options | {"n": 1, "seed": 5 + index}, **ids)
        assert alone.choices[0].token_ids == whole[index]["ids"]


@pytest.mark.parametrize("prompt", [thinking_prompt(1), TOKENIZER.decode(thinking_prompt(1))])
def test_completions_of_texts_and_token_ids(client: openai.OpenAI, prompt: Any) -> None:
    response = complete(client, prompt, CLOSED, logprobs=1)
    whole = check_equal(complete(client, prompt, CLOSED, logprobs=1, stream=True), response)
    assert response.choices[0].prompt_token_ids == thinking_prompt(1)
    assert whole[-1]["blocks"][0]["exit_reason"] == "budget"
    assert TOKENIZER.decode(whole[0]["ids"], skip_special_tokens=True) == whole[0]["text"]
    assert len(whole[0]["logprobs"]) == len(whole[0]["ids"])
    assert None not in whole[0]["logprobs"]


def test_echo(client: openai.OpenAI) -> None:
    options = {"extra_body": {"return_token_ids": False}}  # with them, vLLM echoes no text
    prompt = TOKENIZER.decode(thinking_prompt(1))
    plain = summed(complete(client, prompt, CLOSED, **options))
    response = complete(client, prompt, CLOSED, echo=True, **options)
    stream = complete(client, prompt, CLOSED, echo=True, stream=True, **options)
    whole = check_equal(stream, response)
    assert whole[0]["text"] == prompt + plain[0]["text"]
    assert whole[-1] == plain[-1]
    assert plain[-1]["blocks"][0]["exit_reason"] == "budget"


def test_a_batch_of_prompts(client: openai.OpenAI) -> None:
    prompts = [thinking_prompt(index) for index in range(4)]
    response = complete(client, prompts, n=2, temperature=0.8, seed=3)
    whole = check_equal(
        complete(client, prompts, n=2, temperature=0.8, seed=3, stream=True), response
    )
    assert len(whole.pop(-1)["blocks"]) == len(whole) == 8
    for index, prompt in enumerate(prompts):
        alone = summed(complete(client, prompt, n=2, temperature=0.8, seed=3))
        assert [whole[2 * index], whole[2 * index + 1]] == [alone[0], alone[1]]


def test_an_adapter_with_log_probs_in_company(machine: Machine) -> None:
    """vLLM with adapters has no log-probs of prompts; asking for some would end its engine."""
    ours = machine.ours()

    async def ask(index: int, xargs: Any, **more: Any) -> list[int]:
        options = {"lora_request": ADAPTER}
        (ids,), _ = await ours.ask(index, None, options=options, xargs=xargs, seed=0, **more)
        return ids

    async def together(**more: Any) -> list[list[int]]:
        return await asyncio.gather(*(ask(index, CLOSED, **more) for index in range(4)))

    whole = {"output_kind": RequestOutputKind.FINAL_ONLY}
    streamed = machine.run(together(logprobs=1))
    assert streamed == machine.run(together(logprobs=1, **whole)) == machine.run(together())
    for index, ids in enumerate(streamed):
        assert ids == machine.run(ask(index, CLOSED))
        full = machine.run(ask(index, {"exit_policy": "none"}))
        end = ids.index(END)
        assert full[: end - 1] == ids[: end - 1]  # without the injected newline
        assert "\\boxed{" in TOKENIZER.decode(ids[end:])
    check_no_probe_or_answer_left_the_adapter(ours)


def check_no_probe_or_answer_left_the_adapter(ours: Ours) -> None:
    assert all(call.options["lora_request"] is ADAPTER for call in ours.border.calls)


@pytest.mark.parametrize("xargs", [EXIT, CLOSED | {"exit_budget_tokens": 500}])
def test_a_turn_that_ends_in_its_thinking_is_closed_and_answered(
    client: openai.OpenAI, xargs: Any
) -> None:
    options = {"logit_bias": HASTY, "extra_body": {"return_token_ids": True}}
    response = chat(client, 1, xargs | {"exit_min_tokens": 500}, **options)
    stream = chat(client, 1, xargs | {"exit_min_tokens": 500}, stream=True, **options)
    whole = check_equal(stream, response)
    assert whole[-1]["blocks"][0]["exit_reason"] == "eos_in_thinking"
    assert response.stepgrpo["saved"] is None
    assert "\\boxed{" in whole[0]["text"]
    assert EOS not in whole[0]["ids"][: whole[0]["ids"].index(END)]


def test_usage_while_it_streams(client: openai.OpenAI) -> None:
    usage = {"include_usage": True, "continuous_usage_stats": True}
    index, whole = exited(client)
    counts: list[int] = []
    for chunk in chat(client, index, stream=True, stream_options=usage):
        counts.append(chunk.usage.completion_tokens)
    assert counts == sorted(counts)
    assert vllms(chunk.usage) == vllms(whole.usage)


def test_log_probs_in_responses(client: openai.OpenAI) -> None:
    index, _ = exited(client)
    response: Any = client.responses.create(
        model="demo-base",
        input=PROBLEMS[index].prompt,
        temperature=0,
        include=["message.output_text.logprobs"],
        top_logprobs=1,
        extra_body={"vllm_xargs": EXIT, "seed": 0},
    )
    assert response.stepgrpo["exit_reason"] == "confident"
    [said] = [part for item in response.output for part in item.content if item.type == "message"]
    tokens = "".join(entry.token for entry in said.logprobs)  # of everything, as vLLM does it
    assert tokens.removesuffix("<|im_end|>").endswith(said.text)
    assert all(-50 < entry.logprob <= 0 for entry in said.logprobs)


def test_injected_tokens_have_the_models_own_log_probs_whatever_the_policy(
    client: openai.OpenAI,
) -> None:
    """Scoring the delivered completion as a prompt gives the same values."""
    response = complete(client, thinking_prompt(2), CLOSED, logprobs=0)
    ids = response.choices[0].token_ids
    scored: Any = client.completions.create(
        model="demo-base",
        prompt=[*thinking_prompt(2), *ids],
        max_tokens=1,
        temperature=0,
        extra_body={"prompt_logprobs": 0},
    )
    entries = scored.choices[0].prompt_logprobs[len(thinking_prompt(2)) :]
    truth = [entry[str(token)]["logprob"] for entry, token in zip(entries, ids, strict=True)]
    assert logprobs_of(response.choices[0]) == pytest.approx(truth, abs=1e-2)
