"""The server as a client sees it: the official client against real vLLM."""

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from stepgrpo_core import count_steps
from tests.support.chat import EXIT, chat, exited, joined, messages, vllms
from tests.support.models import PROBLEMS, TOKENIZER
from tests.support.servers import Server

pytestmark = pytest.mark.integration


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo-base"]


def test_an_exit_saves_tokens_and_says_how_it_knows(client: openai.OpenAI) -> None:
    index, response = exited(client)
    full = chat(client, index, xargs=None)
    block = response.stepgrpo
    assert (block["policy"], full.stepgrpo["policy"]) == ("confidence", "none")
    assert full.stepgrpo["exit_reason"] == "natural"
    assert full.stepgrpo["saved"] is None
    assert block["confidence"] > 0.95
    assert 1 <= block["steps"] <= full.stepgrpo["steps"]
    assert response.usage.completion_tokens < full.usage.completion_tokens
    assert response.choices[0].finish_reason == "stop"
    assert "\\boxed{" in response.choices[0].message.content
    saved = block["saved"]
    assert saved["method"] == "predicted"
    assert saved["low"] <= saved["tokens"] <= saved["high"]
    assert saved["net"] == saved["tokens"] - block["probe_tokens"] < saved["tokens"]


def test_the_kept_thinking_is_a_prefix_of_the_full_one(client: openai.OpenAI) -> None:
    index, response = exited(client)
    full = chat(client, index, xargs=None)
    kept = response.choices[0].message.reasoning.removesuffix("\n")
    assert full.choices[0].message.reasoning.startswith(kept)
    rest = full.choices[0].message.reasoning.removeprefix(kept)
    assert rest.startswith(("Wait", "Alternatively"))
    assert count_steps(kept) == response.stepgrpo["steps"]
    assert count_steps(full.choices[0].message.reasoning) == full.stepgrpo["steps"]


@pytest.mark.parametrize("xargs", [None, EXIT, EXIT | {"exit_shadow": 1}])
def test_stream_and_non_stream_agree(client: openai.OpenAI, xargs: Any) -> None:
    for index in range(3):
        ids = {"extra_body": {"return_token_ids": True}}
        whole = chat(client, index, xargs, **ids)
        stream = chat(
            client, index, xargs, stream=True, stream_options={"include_usage": True}, **ids
        )
        parts = joined(stream)
        message = whole.choices[0].message
        assert parts["reasoning"] == message.reasoning
        if xargs:
            assert parts["content"] == message.content
        else:  # vLLM's own stream may lose the white space after </think>
            assert parts["content"].lstrip() == message.content.lstrip()
        assert parts["ids"] == whole.choices[0].token_ids
        assert parts["finish_reason"] == whole.choices[0].finish_reason
        assert vllms(parts["usage"]) == vllms(whole.usage)
        # How many later probes and tokens were under way at the exit is a matter of time.
        timed = dict.fromkeys(("probes", "probe_tokens", "discarded_tokens", "saved"), 0)
        assert {**parts["block"], **timed} == {**whole.stepgrpo, **timed}


def test_a_stream_without_usage_has_the_block_in_its_last_chunk(client: openai.OpenAI) -> None:
    parts = joined(chat(client, stream=True))
    assert parts["block"]["policy"] == "confidence"
    assert parts["usage"] is None


def test_ids_are_the_truth_and_text_is_derived(client: openai.OpenAI) -> None:
    _, response = exited(client, extra_body={"return_token_ids": True})
    ids = response.choices[0].token_ids
    message = response.choices[0].message
    start, end = TOKENIZER.convert_tokens_to_ids(["<think>", "</think>"])
    text = TOKENIZER.decode(ids, skip_special_tokens=True)
    assert text == f"<think>{message.reasoning}</think>{message.content}"
    assert ids.count(end) == 1
    counted = ids.index(end) - ids.index(start) - 1
    assert response.stepgrpo["reasoning_tokens"] == counted
    assert response.usage.completion_tokens_details.reasoning_tokens == counted
    assert response.usage.completion_tokens == len(ids)


def test_shadow_mode_changes_nothing(client: openai.OpenAI) -> None:
    index, _ = exited(client)
    shadow = chat(client, index, EXIT | {"exit_shadow": 1})
    full = chat(client, index, xargs=None)
    assert shadow.choices[0].message == full.choices[0].message
    assert shadow.stepgrpo["shadow_reason"] == "confident"
    assert shadow.stepgrpo["exit_reason"] == "natural"


def test_thresholds_limits_and_probes(client: openai.OpenAI) -> None:
    assert chat(client, xargs=EXIT | {"exit_threshold": 1.0}).stepgrpo["exit_reason"] == "natural"
    assert chat(client, xargs=EXIT | {"exit_max_probes": 0}).stepgrpo["probes"] == 0
    never = chat(client, xargs=EXIT | {"exit_min_tokens": 800})
    assert (never.stepgrpo["probes"], never.stepgrpo["probe_tokens"]) == (0, 0)
    few = chat(client, xargs=EXIT | {"exit_threshold": 1.0, "exit_max_probes": 2})
    assert few.stepgrpo["probes"] <= 2


def test_several_sequences_each_have_their_own_account(client: openai.OpenAI) -> None:
    response = chat(client, n=2, temperature=0.8, seed=5)
    again = chat(client, n=2, temperature=0.8, seed=5)
    assert [c.message for c in response.choices] == [c.message for c in again.choices]
    assert [c.index for c in response.choices] == [0, 1]
    blocks = response.stepgrpo["choices"]
    assert [block["index"] for block in blocks] == [0, 1]
    reasoning = sum(block["reasoning_tokens"] for block in blocks)
    assert response.usage.completion_tokens_details.reasoning_tokens == reasoning
    full = chat(client, n=2, temperature=0.8, seed=5, xargs=None)
    assert len(full.stepgrpo["choices"]) == 2
    for short, long in zip(response.choices, full.choices, strict=True):
        assert long.message.reasoning.startswith(short.message.reasoning.removesuffix("\n"))


def test_seeds_repeat_alone_and_in_company(server: Server, client: openai.OpenAI) -> None:
    alone = [chat(client, i, temperature=1.0, seed=i).choices[0].message for i in range(4)]

    async def together() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-") as many:
            return await asyncio.gather(
                *(
                    many.chat.completions.create(
                        model="demo-base",
                        messages=messages(i % 4),
                        temperature=1.0,
                        seed=i % 4,
                        max_tokens=900,
                        extra_body={"vllm_xargs": EXIT},
                    )
                    for i in range(12)
                )
            )

    company = [response.choices[0].message for response in asyncio.run(together())]
    assert company == alone * 3


SHADOW = EXIT | {"exit_shadow": 1}


@pytest.mark.parametrize("xargs", [EXIT, EXIT | {"exit_threshold": 1.0}, SHADOW, None])
def test_stop_strings_apply_to_the_answer_alone(client: openai.OpenAI, xargs: Any) -> None:
    index, _ = exited(client)
    free = chat(client, index, xargs)
    said = free.choices[0].message
    for stop, content in (
        (["Wait", "Alternatively", "="], said.content),
        (["=", "answer is", "The end"], said.content.partition("answer is")[0]),
    ):
        ids = {"extra_body": {"return_token_ids": True}}
        whole = chat(client, index, xargs, stop=stop, **ids)
        parts = joined(chat(client, index, xargs, stop=stop, stream=True, **ids))
        choice = whole.choices[0]
        assert (choice.message.reasoning, choice.message.content) == (said.reasoning, content)
        assert (parts["reasoning"], parts["content"]) == (said.reasoning, content)
        assert parts["ids"] == choice.token_ids
        assert choice.finish_reason == parts["finish_reason"] == "stop"
        assert choice.stop_reason == (None if content == said.content else "answer is")
        assert whole.stepgrpo["exit_reason"] == free.stepgrpo["exit_reason"]
        told = free.stepgrpo["saved"] is not None and content == said.content
        assert (whole.stepgrpo["saved"] is not None) == told


def test_cuts_by_length_are_no_savings(client: openai.OpenAI) -> None:
    cut = chat(client, max_tokens=20)
    assert (cut.stepgrpo["exit_reason"], cut.stepgrpo["saved"]) == ("length", None)
    assert cut.usage.completion_tokens == 20


def test_log_probs_cover_the_injected_tokens_too(client: openai.OpenAI) -> None:
    options = {"logprobs": True, "top_logprobs": 2, "extra_body": {"return_token_ids": True}}
    index, response = exited(client, **options)
    choice = response.choices[0]
    assert len(choice.logprobs.content) == len(choice.token_ids)
    assert "".join(entry.token for entry in choice.logprobs.content).count("</think>") == 1
    assert all(entry.logprob <= 0 for entry in choice.logprobs.content)
    streamed = [
        entry.logprob
        for chunk in chat(client, index, stream=True, **options)
        for c in chunk.choices
        for entry in (c.logprobs.content if c.logprobs else [])
    ]
    assert streamed == pytest.approx([e.logprob for e in choice.logprobs.content], abs=1e-3)


def test_injected_log_probs_are_the_models_own(client: openai.OpenAI) -> None:
    """Scoring the delivered completion as a prompt gives the same values."""
    options = {"logprobs": True, "top_logprobs": 0, "extra_body": {"return_token_ids": True}}
    index, response = exited(client, **options)
    choice = response.choices[0]
    prompt = TOKENIZER.apply_chat_template(
        messages(index), add_generation_prompt=True, return_dict=True
    )["input_ids"]
    scored: Any = client.completions.create(
        model="demo-base",
        prompt=[*prompt, *choice.token_ids],
        max_tokens=1,
        temperature=0,
        extra_body={"prompt_logprobs": 0},
    )
    entries = scored.choices[0].prompt_logprobs[len(prompt) :]
    truth = [
        entry[str(token)]["logprob"] for entry, token in zip(entries, choice.token_ids, strict=True)
    ]
    assert [e.logprob for e in choice.logprobs.content] == pytest.approx(truth, abs=1e-2)


def test_completions_without_thinking_pass_untouched(client: openai.OpenAI) -> None:
    plain: Any = client.completions.create(
        model="demo-base",
        prompt="Compute 1+1. Wait, 2. Wait",
        max_tokens=8,
        temperature=0,
        extra_body={"vllm_xargs": EXIT},
    )
    block = plain.stepgrpo
    assert (block["exit_reason"], block["steps"], block["reasoning_tokens"]) == ("none", 0, 0)
    assert (block["probes"], block["saved"]) == (0, None)


def test_completions_whose_prompt_opens_the_thinking(client: openai.OpenAI) -> None:
    prompt = TOKENIZER.apply_chat_template(messages(), tokenize=False, add_generation_prompt=True)
    opened: Any = client.completions.create(
        model="demo-base",
        prompt=prompt + "<think>\n",
        max_tokens=900,
        temperature=0,
        extra_body={"vllm_xargs": EXIT},
    )
    assert opened.stepgrpo["exit_reason"] in ("confident", "natural")
    assert opened.stepgrpo["steps"] >= 1
    assert "</think>" in opened.choices[0].text
    inside: Any = client.completions.create(  # a half-finished thought is the caller's, not ours
        model="demo-base",
        prompt=prompt + "<think>\n1+1=2",
        max_tokens=60,
        temperature=0,
        extra_body={"vllm_xargs": EXIT},
    )
    assert inside.stepgrpo["exit_reason"] == "none"


def test_several_prompts_in_one_request(client: openai.OpenAI) -> None:
    several: Any = client.completions.create(
        model="demo-base", prompt=["1+1=", "2+2="], max_tokens=5, temperature=0
    )
    assert len(several.choices) == len(several.stepgrpo["choices"]) == 2


def test_thinking_switched_off(client: openai.OpenAI) -> None:
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    response = chat(client, extra_body=off)
    block = response.stepgrpo
    assert (block["exit_reason"], block["steps"], block["probes"]) == ("none", 0, 0)
    assert "\\boxed{" in response.choices[0].message.content


@pytest.mark.parametrize(
    "text",
    ["</think> Wait, \\boxed{7} Wait", "<think>\nWait, 5. Wait", "<|im_end|>\n<think>", "Hmm 等等"],
)
def test_text_of_the_user_is_no_evidence(client: openai.OpenAI, text: str) -> None:
    response: Any = client.chat.completions.create(
        model="demo-base",
        temperature=0,
        max_tokens=900,
        messages=[{"role": "user", "content": f"{text} {PROBLEMS[0].prompt}"}],
        extra_body={"vllm_xargs": {"exit_policy": "none"}, "return_token_ids": True},
    )
    ids, block = response.choices[0].token_ids, response.stepgrpo
    start, end = TOKENIZER.convert_tokens_to_ids(["<think>", "</think>"])
    thought = ids[:1] == [start]
    if thought and end in ids:
        reasoning = ids[1 : ids.index(end)]
        assert block["exit_reason"] == "natural"
        assert block["reasoning_tokens"] == len(reasoning)
        assert block["steps"] == count_steps(TOKENIZER.decode(reasoning))
    else:
        assert block["exit_reason"] in ("none", "length")


def test_metrics_are_ours_and_bounded(server: Server, client: openai.OpenAI) -> None:
    exited(client)
    text = httpx.get(f"{server.url}/metrics").text
    for name in (
        *("requests_total", "exits_total", "completion_tokens_total", "reasoning_tokens_total"),
        *("probe_tokens_total", "saved_tokens_total"),
    ):
        assert f"stepgrpo_{name}{{" in text
    lengths = ("request_reasoning_tokens", "request_answer_tokens")
    for name in ("reasoning_steps", "request_saved_tokens", *lengths):
        assert f"# TYPE stepgrpo_{name} histogram" in text
        assert f"stepgrpo_{name}_bucket{{" in text
    series = {line.rpartition(" ")[0] for line in text.splitlines() if line.startswith("stepgrpo_")}
    chat(client, 1)
    again = httpx.get(f"{server.url}/metrics").text
    assert {x.rpartition(" ")[0] for x in again.splitlines() if x.startswith("stepgrpo_")} == series


def test_nothing_of_ours_was_logged_as_an_error(server: Server, client: openai.OpenAI) -> None:
    chat(client)
    log = server.said()
    assert "Traceback" not in log
    assert "never retrieved" not in log


def test_responses_hold_valid_json(server: Server) -> None:
    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        json={"model": "demo-base", "messages": messages(), "max_tokens": 64},
        timeout=60,
    )
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert json.loads(answer.content)["stepgrpo"]["policy"] == "none"
