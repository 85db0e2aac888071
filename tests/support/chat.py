"""Requests to a server with the demo model, and readers of their responses."""

import json
from typing import Any

import openai

from tests.support.models import EOS, PROBLEMS, TOKENIZER, prompt_ids

EXIT = {"exit_policy": "confidence"}
HASTY = {str(EOS): 11}
"""Bias that makes the demo model end its turn inside its thinking."""
IDLE_SECONDS = 3
"""Time limit for a server without clients to be idle: 1 s is promised; busy machines are slower."""


def messages(index: int = 0) -> list[Any]:
    return [{"role": "user", "content": PROBLEMS[index].prompt}]


def body_of(index: int = 0, xargs: Any = EXIT, **more: Any) -> dict[str, Any]:
    """Return the body of a chat request about a problem."""
    body = {"model": "demo-base", "messages": messages(index), "max_tokens": 900, "seed": 0}
    return body | {"temperature": 0, "vllm_xargs": xargs} | more


def chat(client: openai.OpenAI, index: int = 0, xargs: Any = EXIT, **options: Any) -> Any:
    extra = options.pop("extra_body", {}) | ({"vllm_xargs": xargs} if xargs else {})
    # With a seed, the load of other requests refuses no probe.
    options = {"temperature": 0, "max_tokens": 900, "seed": 0} | options
    return client.chat.completions.create(
        model="demo-base", messages=messages(index), extra_body=extra, **options
    )


def exited(client: openai.OpenAI, **options: Any) -> tuple[int, Any]:
    """Return the index of a problem whose thinking the policy truncates, and the response."""
    for index in range(len(PROBLEMS)):
        response = chat(client, index, **options)
        if response.stepgrpo["exit_reason"] == "confident":
            return index, response
    raise AssertionError("no problem was exited")


def joined(stream: Any) -> dict[str, Any]:
    """Return the concatenated parts of a stream."""
    parts: dict[str, Any] = {"reasoning": "", "content": "", "ids": [], "finish_reason": None}
    for chunk in stream:
        for choice in chunk.choices:
            parts["reasoning"] += getattr(choice.delta, "reasoning", None) or ""
            parts["content"] += choice.delta.content or ""
            parts["ids"] += getattr(choice, "token_ids", None) or []
            parts["finish_reason"] = choice.finish_reason or parts["finish_reason"]
        last = chunk
    return parts | {"block": getattr(last, "stepgrpo", None), "usage": last.usage}


def steady(block: dict[str, Any]) -> dict[str, Any]:
    """Return the block without fields that depend on timing: how many later probes an exit cut
    short, or were refused because one still ran, and how far the thinking had continued.
    """
    timed = {"probes", "probe_tokens", "refused_probes", "discarded_tokens", "saved"}
    return {name: block[name] for name in block.keys() - timed}


def sse(text: str) -> list[Any]:
    """Return the decoded events of a stream."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(each) for each in data if each != "[DONE]"]


def thinking_prompt(index: int) -> list[int]:
    """Return the ids of a prompt that opens the thinking."""
    return [*prompt_ids(index), *TOKENIZER.encode("<think>\n", add_special_tokens=False)]


def complete(client: openai.OpenAI, prompt: Any, xargs: Any = EXIT, **options: Any) -> Any:
    extra = {"vllm_xargs": xargs, "return_token_ids": True} | options.pop("extra_body", {})
    options = {"temperature": 0, "max_tokens": 600, "seed": 0} | options
    return client.completions.create(model="demo-base", prompt=prompt, extra_body=extra, **options)


def vllms(usage: Any) -> dict[str, Any]:
    """Return the usage of a response without our block, which depends on timing."""
    found: dict[str, Any] = dict(usage) if isinstance(usage, dict) else usage.model_dump()
    found.pop("stepgrpo", None)
    return found
