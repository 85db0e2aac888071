"""Many clients, and clients that leave: nothing is lost, held or counted twice."""

import asyncio
from typing import Any

import httpx
import openai
import pytest

from tests.support.chat import EXIT, IDLE_SECONDS, chat, messages
from tests.support.models import EOS
from tests.support.servers import Server, check_accounts, total

pytestmark = pytest.mark.integration


def test_64_at_once(server: Server) -> None:
    async def one(many: openai.AsyncOpenAI, i: int) -> Any:
        return await many.chat.completions.create(
            model="demo-base",
            messages=messages(i),
            temperature=0.6,
            max_tokens=900,
            seed=i,
            extra_body={"vllm_xargs": EXIT if i % 2 else {"exit_policy": "none"}},
        )

    async def together() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-") as many:
            return await asyncio.gather(*(one(many, i) for i in range(64)))

    responses = asyncio.run(together())
    assert all(r.choices[0].message.content for r in responses)
    mean = [sum(r.usage.completion_tokens for r in responses[odd::2]) / 32 for odd in (0, 1)]
    assert mean[1] < 0.8 * mean[0]
    server.wait_idle(IDLE_SECONDS)
    check_accounts(server.metrics())


@pytest.mark.parametrize("xargs", [{"exit_policy": "none"}, EXIT, EXIT | {"exit_threshold": 1.0}])
@pytest.mark.parametrize("after", [0, 1, 5, 12, 40, 60])
def test_a_client_that_leaves_frees_everything(server: Server, xargs: Any, after: int) -> None:
    """Cut in the first token, in thinking, while a probe is under way, and in the answer."""
    before = server.metrics()
    body = {
        "model": "demo-base",
        "messages": messages(after % 8),
        "max_tokens": 900,
        "stream": True,
        "temperature": 0,
        "vllm_xargs": xargs,
    }
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body) as response:
        for number, _ in enumerate(response.iter_lines()):
            if number >= 2 * after:
                break
    server.wait_idle(IDLE_SECONDS)
    now = server.metrics()
    check_accounts(now)
    assert total(now, "requests") == total(before, "requests") + 1
    assert total(now, "exits") == total(before, "exits") + 1


def test_tokens_behind_a_stop_string_are_accounted_for(server: Server) -> None:
    before = server.metrics()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-") as client:
        for index in range(8):
            xargs = EXIT | {"exit_threshold": 1.0 if index % 2 else 0.5}
            stopped = chat(client, index, xargs, stop=["final", "="])
            assert stopped.choices[0].stop_reason == "final"
    server.wait_idle(IDLE_SECONDS)
    now = server.metrics()
    check_accounts(now)
    assert total(now, "aborted_tokens") == total(before, "aborted_tokens")
    assert total(now, "saved_tokens") == total(before, "saved_tokens")


def test_clients_that_leave_without_streaming_free_everything(server: Server) -> None:
    before = server.metrics()

    async def leave(many: httpx.AsyncClient, i: int) -> None:
        body = {
            "model": "demo-base",
            "messages": messages(i),
            "max_tokens": 900,
            "logit_bias": {str(EOS): -100},  # none ends before its client leaves
            "vllm_xargs": EXIT | {"exit_threshold": 1.0} if i % 2 else {"exit_policy": "none"},
            "n": 1 + i % 3,
        }
        with pytest.raises(httpx.TimeoutException):
            await many.post(
                f"{server.url}/v1/chat/completions", json=body, timeout=0.1 + 0.05 * (i % 5)
            )

    async def together() -> None:
        async with httpx.AsyncClient() as many:
            await asyncio.gather(*(leave(many, i) for i in range(30)))

    asyncio.run(together())
    server.wait_idle(IDLE_SECONDS)
    check_accounts(server.metrics())
    saved = "saved_tokens"
    assert total(server.metrics(), saved) == total(before, saved)
