"""Policy `verifier` with its judge behind a URL: one that can be told to fail, and real vLLM."""

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.clients.judge import JudgeClient, JudgeServer
from stepgrpo_core.policies import Judge
from tests.support.chat import IDLE_SECONDS, messages
from tests.support.servers import Server, check_accounts, total
from tests.support.service.judging import KEY, LocalJudge, completion, forwarding, yes

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BY_JUDGE = {"exit_policy": "verifier"}
MINE = {"Authorization": "Bearer mine"}
CHAT = "/v1/chat/completions"


def body_of(xargs: dict[str, Any], **options: Any) -> dict[str, Any]:
    plain = {"model": "demo-base", "messages": messages(), "temperature": 0, "max_tokens": 900}
    return plain | {"return_token_ids": True, "vllm_xargs": xargs} | options


def chat(server: Server, xargs: dict[str, Any], **options: Any) -> dict[str, Any]:
    body = body_of(xargs, **options)
    answer = httpx.post(f"{server.url}{CHAT}", json=body, headers=MINE, timeout=120)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def outcomes(server: Server) -> dict[str, float]:
    """Questions to the judge, by what became of them."""
    text = "\n".join(server.scrape())
    found = re.findall(r'stepgrpo_judge_requests_total\{outcome="(\w+)"\} (\S+)', text)
    return {outcome: float(count) for outcome, count in found}


@pytest.fixture
def judge(guarded: Server, local_judge: LocalJudge) -> Iterator[LocalJudge]:
    """The judge, in good health and trusted."""
    local_judge.behave = yes
    for _ in range(90):
        if chat(guarded, BY_JUDGE)["stepgrpo"]["exit_reason"] == "verified":
            break
        time.sleep(1)
    else:
        raise AssertionError("the judge was not asked any more")
    guarded.wait_idle(IDLE_SECONDS)
    local_judge.asked.clear()
    local_judge.arrived.clear()
    yield local_judge
    local_judge.behave = yes


def test_a_judge_that_is_content_ends_the_thinking(guarded: Server, judge: LocalJudge) -> None:
    before, counted = guarded.metrics(), outcomes(guarded)
    response = chat(guarded, BY_JUDGE)
    block = response["stepgrpo"]
    assert (block["exit_reason"], block["confidence"]) == ("verified", 0.9478)
    assert (block["probe_tokens"], block["judge_tokens"] % 41) == (0, 0)
    assert "\\boxed{" in response["choices"][0]["message"]["content"]
    assert messages()[0]["content"] in judge.asked[0]["messages"][0]["content"]
    assert set(judge.keys) == {f"Bearer {KEY}"}
    guarded.wait_idle(IDLE_SECONDS)
    now = guarded.metrics()
    check_accounts(now)
    told = outcomes(guarded)["answered"] - counted["answered"]
    spent = total(now, "judge_tokens") - total(before, "judge_tokens")
    assert told >= 1
    assert spent == told * 41
    assert total(now, "probe_tokens") == total(before, "probe_tokens")


def test_a_judge_that_is_not_content_changes_nothing(guarded: Server, judge: LocalJudge) -> None:
    judge.behave = lambda _: completion("no", usage=None)
    response, plain = chat(guarded, BY_JUDGE), chat(guarded, {"exit_policy": "none"})
    assert response["choices"] == plain["choices"]
    assert response["stepgrpo"]["exit_reason"] == "natural"
    assert response["stepgrpo"]["probes"] == len(judge.asked) > 0


@pytest.mark.parametrize("fault", ["hangs", "fails", "hangs up", "raves"])
def test_a_judge_that_fails_is_no_exit_and_no_failure(
    guarded: Server, judge: LocalJudge, fault: str
) -> None:
    counted = outcomes(guarded)
    faults: dict[str, Any] = {
        "hangs": judge.hang,
        "fails": lambda _: (500, b"{}"),
        "hangs up": lambda _: None,
        "raves": lambda _: (200, b'{"choices": [{"message": {"content": 7}}]}'),
    }
    judge.behave = faults[fault]
    response, plain = chat(guarded, BY_JUDGE), chat(guarded, {"exit_policy": "none"})
    assert response["choices"] == plain["choices"]
    assert response["stepgrpo"]["exit_reason"] == "natural"
    assert response["stepgrpo"]["failed_probes"] > 0
    names = {"hangs": "timeout", "fails": "refused", "hangs up": "unreachable", "raves": "garbage"}
    assert outcomes(guarded)[names[fault]] > counted.get(names[fault], 0)
    guarded.wait_idle(IDLE_SECONDS)
    check_accounts(guarded.metrics())


def test_questions_of_a_client_that_leaves_are_cancelled(
    guarded: Server, judge: LocalJudge
) -> None:
    judge.behave = judge.hang
    counted = outcomes(guarded).get("cancelled", 0)
    body = body_of(BY_JUDGE, stream=True)
    url = f"{guarded.url}{CHAT}"
    with httpx.stream("POST", url, json=body, headers=MINE, timeout=60) as response:
        assert response.status_code == 200
        assert judge.arrived.wait(60)
    guarded.wait_idle(IDLE_SECONDS)
    assert outcomes(guarded)["cancelled"] > counted
    check_accounts(guarded.metrics())


def test_the_same_model_judges_alike_behind_a_url(
    server: Server, guarded: Server, judge: LocalJudge
) -> None:
    """Real vLLM as the judge, asked over HTTP and asked in the engine."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        judge.behave = forwarding(client, "demo-base")
        there, here = chat(guarded, BY_JUDGE), chat(server, BY_JUDGE)
    assert there["choices"] == here["choices"]
    for name in ("exit_reason", "probes", "confidence"):
        assert there["stepgrpo"][name] == here["stepgrpo"][name]
    assert there["stepgrpo"]["judge_tokens"] > there["stepgrpo"]["probes"] > 0
    server.wait_idle(IDLE_SECONDS)
    check_accounts(server.metrics())


def test_real_vllm_tells_its_probabilities(server: Server) -> None:
    question = Judge("", "", "", max_tokens=1, top=20)

    async def ask() -> Any:
        client = JudgeClient(JudgeServer(f"{server.url}/v1", "demo-base", timeout=60))
        try:
            return await client.ask(question, messages()[0]["content"])
        finally:
            await client.close()

    judgment = asyncio.run(ask())
    assert (judgment.outcome, judgment.completion_tokens) == ("answered", 1)
    values = [value for _, value in judgment.reply.first]
    assert len(values) == 20
    assert values == sorted(values, reverse=True)
    assert max(values) <= 0
    assert judgment.reply.text.strip() == judgment.reply.first[0][0].strip()
    assert "<think>" not in judgment.reply.text


def test_clients_choose_no_judge(server: Server) -> None:
    for name in ("exit_verifier_url", "exit_verifier_model"):
        answer = httpx.post(f"{server.url}{CHAT}", json=body_of({name: "http://x"}), timeout=60)
        assert answer.status_code == 400
        assert name in answer.json()["error"]["message"]


def test_the_key_of_the_judge_is_in_no_log(guarded: Server, judge: LocalJudge) -> None:
    chat(guarded, BY_JUDGE)
    assert judge.keys[-1] == f"Bearer {KEY}"
    assert KEY not in guarded.log.read_text()
