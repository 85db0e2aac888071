"""With policy `none` the server answers as stock vLLM does, byte for byte."""

import json
import re
from typing import Any

import httpx
import pytest

from tests.support.servers import Server
from training.demo.world import sample_problems

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PROMPTS = [problem.prompt for problem in sample_problems(11, "test", 44)] + [
    "Wait, what?",
    "</think> Wait \\boxed{1}",
    "等等，不对",
    "\U0001f914" * 20,
    "a",
    "Compute 1+1. " * 30,
]
# What differs between any two runs of the same server, and what is ours: the block, and the
# second name of the reasoning.
IDS = re.compile(rb'"(id|created)":("[^"]*"|\d+),|"system_fingerprint":("[^"]*"|null),?')
BLOCK = re.compile(rb',"stepgrpo":\{.*?\}(?=\}\Z|\}\n\n)')
COUNT = re.compile(rb'"reasoning_tokens":\d+')
SECOND_NAME = re.compile(rb',"reasoning_content":("(?:[^"\\]|\\.)*"|null)')


def answer(server: Server, body: dict[str, Any], path: str) -> bytes:
    response = httpx.post(
        f"{server.url}/v1/{path}", json={"model": "demo-base"} | body, timeout=120
    )
    assert response.status_code == 200, response.text
    return response.content


def stripped(raw: bytes) -> bytes:
    return IDS.sub(b"", SECOND_NAME.sub(b"", BLOCK.sub(b"", raw)))


def chat(prompt: str, **options: Any) -> dict[str, Any]:
    message = {"role": "user", "content": prompt}
    return {"messages": [message], "temperature": 0, "max_tokens": 128} | options


@pytest.mark.parametrize("prompt", PROMPTS)
def test_chat(server: Server, stock: Server, prompt: str) -> None:
    body = chat(prompt)
    ours, theirs = (answer(each, body, "chat/completions") for each in (server, stock))
    assert b'"stepgrpo"' in ours
    assert b'"stepgrpo"' not in stripped(ours)
    if b'"exit_reason":"eos_in_thinking"' in ours:  # ours counts the token that ends the turn, too
        ours, theirs = (COUNT.sub(b"", each) for each in (ours, theirs))
    assert stripped(ours) == stripped(theirs)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", chat(PROMPTS[0], stream=True)),
        (
            "chat/completions",
            chat(
                PROMPTS[1],
                stream=True,
                stream_options={"include_usage": True},
                n=2,
                seed=3,
                temperature=0.7,
            ),
        ),
        ("chat/completions", chat(PROMPTS[2], logprobs=True, top_logprobs=3)),
        ("chat/completions", chat(PROMPTS[3], stop=["answer"], temperature=0.7, seed=1)),
        ("completions", {"prompt": [PROMPTS[0], "1+1="], "temperature": 0, "logprobs": 1}),
        ("completions", {"prompt": "1+1=", "temperature": 0, "stream": True, "echo": True}),
    ],
)
def test_other_forms(server: Server, stock: Server, path: str, body: dict[str, Any]) -> None:
    ours, theirs = (answer(each, body, path) for each in (server, stock))
    assert b'"stepgrpo"' in ours
    assert merged(ours) == merged(theirs)


def merged(raw: bytes) -> Any:
    """Streams may pack tokens into chunks differently from run to run; what they add up to may
    not: texts, ends and usage by choice."""
    if not raw.startswith(b"data: "):
        return stripped(raw)
    whole: dict[tuple[int, str], Any] = {}
    for line in raw.splitlines():
        event = line.removeprefix(b"data: ")
        chunk = json.loads(event) if event.startswith(b"{") else {}
        for choice in chunk.get("choices", []):
            parts = {"text": choice.get("text"), **choice.get("delta", {})}
            for name in ("text", "reasoning", "content"):
                place = choice["index"], name
                whole[place] = whole.get(place, "") + (parts.get(name) or "")
            if choice.get("finish_reason"):
                whole[choice["index"], "end"] = choice["finish_reason"]
        if chunk.get("usage"):
            whole[-1, "usage"] = chunk["usage"]
    return whole
