"""A client that wants its answer now, on real vLLM."""

import concurrent.futures
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.chat import EXIT, IDLE_SECONDS, messages
from tests.support.finishing import (
    CHAT,
    MAX_TOKENS,
    NEVER_ENDS,
    NOT_FOUND,
    THINKS_ON,
    TRIES,
    bearer,
    chat_body,
    finish,
    id_in,
    wished,
)
from tests.support.models import END, EOS, PROBLEMS, START, TOKENIZER
from tests.support.servers import Server, check_accounts

pytestmark = pytest.mark.integration

NEVER = EXIT | {"exit_threshold": 1.0}
LONG = PROBLEMS[0].prompt.replace("+", "+9-8+7-6+5-4+3-2+1" * 6 + "+", 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"logprobs": True, "top_logprobs": 1},
        {"vllm_xargs": NEVER},
        {"vllm_xargs": NEVER, "logprobs": True, "top_logprobs": 1},
        {"vllm_xargs": NEVER | {"exit_shadow": 1}},
        {"vllm_xargs": {"exit_policy": "repetition"}, "stop": ["answer"]},
        {"stop": ["answer"]},
    ],
    ids=["none", "none, logprobs", "probes", "probes, logprobs", "shadow", "stop", "none, stop"],
)
def test_the_thinking_ends_and_the_answer_comes(server: Server, options: dict[str, Any]) -> None:
    body = chat_body(logit_bias={str(END): -100}, **options)  # thinks for some 700 tokens
    found = wished(server, body)
    (answered,) = found.answers
    assert (answered.status_code, answered.json()["sequences"]) == (200, 1)
    block, ids = found.block, found.ids
    assert block["exit_reason"] == "client"
    assert block["saved"] is None
    assert block["reasoning_tokens"] < MAX_TOKENS / 3
    assert ids.count(END) == 1
    assert ids.index(END) - ids.index(START) - 1 == block["reasoning_tokens"]
    assert len(ids) == found.events[-1]["usage"]["completion_tokens"]
    said = f"<think>{found.text('reasoning')}</think>{found.text('content')}"
    assert TOKENIZER.decode(ids, skip_special_tokens=True).startswith(said)
    assert "The final" in found.text("content")
    assert found.text("finish_reason") == "stop"
    if "logprobs" in options:
        entries = [entry for part in found.choice("logprobs") for entry in part["content"]]
        assert len(entries) == len(ids)
        assert all(entry["logprob"] <= 0 for entry in entries)
    server.wait_idle(IDLE_SECONDS)
    check_accounts(server.metrics())


@pytest.mark.slow
def test_what_was_thought_until_then_stays(server: Server) -> None:
    def reasoning(body: dict[str, Any]) -> str:
        answer = httpx.post(f"{server.url}{CHAT}", json=body | {"stream": False}, timeout=120)
        text: str = answer.json()["choices"][0]["message"]["reasoning"]
        return text

    full = chat_body(stream_options=None, vllm_xargs={"exit_policy": "none"})
    for xargs in ({"exit_policy": "none"}, NEVER):
        found = wished(server, chat_body(vllm_xargs=xargs))
        kept = found.text("reasoning").removesuffix("\n")
        assert kept
        assert reasoning(full).startswith(kept)


@pytest.mark.slow
def test_every_sequence_closes_its_own_thinking(server: Server) -> None:
    body = chat_body(n=3, temperature=0.8, seed=1, vllm_xargs=NEVER)
    found = wished(server, body, after=30)
    assert found.answers[0].json()["sequences"] == 3
    assert [each["exit_reason"] for each in found.block["choices"]] == ["client"] * 3
    for index in range(3):
        assert "The final" in found.text("content", index)
        assert len(found.choice("finish_reason", index)) == 1


@pytest.mark.parametrize("xargs", [{"exit_policy": "none"}, NEVER])
def test_an_answer_with_a_grammar_keeps_to_it(server: Server, xargs: dict[str, Any]) -> None:
    body = chat_body(vllm_xargs=xargs, structured_outputs={"regex": "[0-9]{3}"})
    found = wished(server, body)
    assert found.answers[0].json().get("sequences") == 1, found.answers[0].text
    assert found.block["exit_reason"] == "client"
    assert re.fullmatch(r"\s*[0-9]{3}", found.text("content"))


@pytest.mark.slow
def test_the_other_apis_can_be_asked_too(server: Server) -> None:
    prompt = TOKENIZER.apply_chat_template(messages(), tokenize=False, add_generation_prompt=True)
    body = chat_body(prompt=[prompt, prompt])
    del body["messages"]
    found = wished(server, body, path="/v1/completions", after=20)
    assert found.answers[0].json()["sequences"] == 2
    assert [each["exit_reason"] for each in found.block["choices"]] == ["client"] * 2
    assert all("</think>" in found.text("text", index) for index in range(2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/responses",
            {"input": LONG, "max_output_tokens": MAX_TOKENS, "logit_bias": THINKS_ON},
        ),
        (
            "/v1/messages",
            {"messages": [{"role": "user", "content": LONG}], "max_tokens": MAX_TOKENS},
        ),
    ],
)
def test_responses_and_messages_can_be_asked_by_their_ids(
    server: Server, path: str, body: dict[str, Any]
) -> None:
    before = exits_of_clients(server)
    more = {"model": "demo-base", "stream": True, "temperature": 0}
    for _ in range(5):  # messages take no bias, so their thinking may be over when we ask
        found = wished(server, body | more, path=path, after=4, when="delta")
        if found.answers[0].status_code == 200:
            break
    assert found.answers[0].json().get("sequences") == 1, found.answers[0].text
    server.wait_idle(IDLE_SECONDS)
    assert exits_of_clients(server) == before + 1
    check_accounts(server.metrics())


def exits_of_clients(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    lines = [x for x in text.splitlines() if x.startswith("stepgrpo_exits_total{")]
    return sum(float(x.rpartition(" ")[2]) for x in lines if 'exit_reason="client"' in x)


@pytest.mark.slow
def test_asked_while_it_answers_or_twice_nothing_changes(server: Server) -> None:
    long = chat_body(logit_bias=NEVER_ENDS)  # an answer that goes on until the last wish is heard
    found = wished(server, long, keys=("mine",) * 3)
    assert [each.status_code for each in found.answers] == [200] * 3
    assert found.ids.count(END) == 1
    late = chat_body(logit_bias={str(EOS): -100})
    for _ in range(TRIES):
        found = wished(server, late, when="final")
        if found.answers[0].status_code != NOT_FOUND:
            break
    assert (found.answers[0].status_code, found.answers[0].json()["sequences"]) == (200, 0)
    assert found.block["exit_reason"] == "natural"


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"n": 2, "temperature": 1}, "stream it with n=1, or name a policy"),
        ({"ignore_eos": True}, "ignore_eos is set; leave it out"),
    ],
)
def test_what_cannot_be_closed_says_why(
    server: Server, options: dict[str, Any], remedy: str
) -> None:
    body = chat_body(logit_bias=NEVER_ENDS, **options)
    found = wished(server, body, after=2, leave=True)
    assert found.answers[0].status_code == 409
    assert remedy in found.answers[0].json()["error"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("xargs", [NEVER, {"exit_policy": "none"}])
def test_requests_that_do_not_stream_can_be_asked_by_an_id_of_the_clients(
    server: Server, xargs: dict[str, Any]
) -> None:
    body = chat_body(stream=False, stream_options=None, vllm_xargs=xargs)
    headers = bearer("mine") | {"X-Request-Id": "mine-1"}
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        answer = pool.submit(client.post, CHAT, json=body, headers=headers)
        wish = next(each for each in asking(client, "chatcmpl-mine-1") if each.status_code != 404)
        block = answer.result().json()["stepgrpo"]
    if xargs is NEVER:
        assert (wish.status_code, block["exit_reason"]) == (200, "client")
    else:
        assert wish.status_code == 409
        assert block["exit_reason"] != "client"
        assert "stream it" in wish.json()["error"]["message"]


def asking(client: httpx.Client, name: str) -> Iterator[httpx.Response]:
    for _ in range(200):
        yield finish(client, name)
        time.sleep(0.01)


def test_ids_of_nothing_and_of_what_has_ended_are_not_found(server: Server) -> None:
    found = wished(server, chat_body(logit_bias={}), after=10**9)
    with httpx.Client(base_url=server.url) as client:
        ended = finish(client, id_in(found.events))
        unknown = finish(client, "chatcmpl-0")
    assert (ended.status_code, ended.content) == (404, unknown.content)
    assert ended.json()["error"]["param"] == "id"


@pytest.mark.slow
def test_only_the_key_of_the_request_can_ask(guarded: Server) -> None:
    """Without a key 401; with another one, as if there were no such request."""
    found = wished(guarded, chat_body(), keys=(None, "wrong", "yours", "mine"))
    assert [each.status_code for each in found.answers] == [401, 401, 404, 200]
    with httpx.Client(base_url=guarded.url) as client:
        unknown = finish(client, "chatcmpl-0", "yours")
    assert found.answers[2].content == unknown.content
    assert found.block["exit_reason"] == "client"
    assert "mine" not in guarded.log.read_text()


def test_the_routes_are_documented(server: Server) -> None:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert f"{CHAT}/{{id}}/finish-thinking" in paths
