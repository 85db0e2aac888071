"""Parameters of every ecosystem on real vLLM: budgets bound, off is off, nothing is ignored."""

from typing import Any

import httpx
import openai
import pytest
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from service.params import EFFORT, FOREIGN, PARAMETERS, Parameter, ThinkingRequest, read_body
from tests.support.servers import Server
from training.demo.world import sample_problems

pytestmark = pytest.mark.integration

PROMPT = sample_problems(7, "test", 64)[0].prompt
LIMIT = 900
BUDGET = 20
ENDPOINTS = ("chat/completions", "responses", "messages")
BUDGETS = [row for row in FOREIGN if row.sets == "budget"]
EFFORTS = [row for row in FOREIGN if row.sets == "effort"]
SWITCHES = [row for row in FOREIGN if row.sets == "switch"]


def body_of(row: Parameter | str, value: Any) -> dict[str, Any]:
    path = row if isinstance(row, str) else row.path
    place, _, leaf = path.rpartition(".")
    if path == "thinking.budget_tokens":
        return {"thinking": {"type": "enabled", "budget_tokens": value}}
    return {place: {leaf: value}} if place else {leaf: value}


def ask(server: Server, endpoint: str, limit: int = LIMIT, **body: Any) -> httpx.Response:
    """One greedy request in the endpoint's own words."""
    message = [{"role": "user", "content": PROMPT}]
    own = {
        "chat/completions": {"messages": message, "max_completion_tokens": limit},
        "responses": {"input": PROMPT, "max_output_tokens": limit},
        "messages": {"messages": message, "max_tokens": limit},
        "completions": {
            "prompt": f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n<think>\n",
            "max_tokens": limit,
        },
    }[endpoint]
    return httpx.post(
        f"{server.url}/v1/{endpoint}",
        json={"model": "demo-base", "temperature": 0, **own, **body},
        timeout=120,
    )


def block_of(server: Server, endpoint: str, **body: Any) -> dict[str, Any]:
    answer = ask(server, endpoint, **body)
    assert answer.status_code == 200, answer.text
    block: dict[str, Any] = answer.json()["stepgrpo"]
    return block


def visible(answer: httpx.Response) -> str:
    """The text of the answer, without the reasoning."""
    body = answer.json()
    if "choices" in body:
        return str(body["choices"][0]["message"]["content"])
    parts = body.get("content") or [
        part for item in body["output"] if item["type"] == "message" for part in item["content"]
    ]
    return "".join(part.get("text") or "" for part in parts)


@pytest.fixture(scope="module")
def unbounded(server: Server) -> int:
    """Reasoning tokens when nothing is asked; more than every bound below."""
    tokens: int = block_of(server, "chat/completions")["reasoning_tokens"]
    assert tokens > 2 * BUDGET
    return tokens


@pytest.mark.parametrize("endpoint", [*ENDPOINTS, "completions"])
@pytest.mark.parametrize("row", BUDGETS, ids=lambda row: row.path)
def test_a_budget_bounds_the_thinking_and_says_so(
    server: Server, unbounded: int, row: Parameter, endpoint: str
) -> None:
    assert unbounded > BUDGET
    block = block_of(server, endpoint, **body_of(row, BUDGET))
    assert block["exit_reason"] == "budget"
    assert 0 < block["reasoning_tokens"] <= BUDGET + BUDGET // 10 + 1  # the closing's line end
    assert block["policy"] == "budget"
    assert block["settings"] == {
        "budget_tokens": BUDGET,
        "from": {"policy": row.path, "budget_tokens": row.path},
    }


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("row", EFFORTS, ids=lambda row: row.path)
def test_an_effort_bounds_the_thinking(
    server: Server, unbounded: int, row: Parameter, endpoint: str
) -> None:
    limit = unbounded * 3  # low: three fifths of what it would take
    block = block_of(server, endpoint, limit=limit, **body_of(row, "low"))
    share = EFFORT["low"]
    assert isinstance(share, float)
    assert block["settings"]["budget_tokens"] == int(share * limit)
    assert block["settings"]["from"]["budget_tokens"] == row.path
    assert block["exit_reason"] == "budget"
    assert block["reasoning_tokens"] <= int(share * limit) * 1.1 + 1


def test_the_operators_own_efforts_hold(server: Server) -> None:
    block = block_of(server, "chat/completions", reasoning_effort="minimal")
    assert (block["settings"]["budget_tokens"], block["exit_reason"]) == (24, "budget")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "body",
    [
        *(body_of(row, "disabled" if row.path == "thinking.type" else False) for row in SWITCHES),
        {"reasoning_effort": "none"},
        {"thinking_budget": 0},
        {"nvext": {"max_thinking_tokens": 0}},
        {"vllm_xargs": {"exit_budget_tokens": 0}},
    ],
    ids=str,
)
def test_off_is_off(server: Server, endpoint: str, body: Any) -> None:
    answer = ask(server, endpoint, **body)
    assert answer.status_code == 200, answer.text
    block = answer.json()["stepgrpo"]
    assert (block["exit_reason"], block["reasoning_tokens"], block["steps"]) == ("none", 0, 0)
    assert "\\boxed{" in visible(answer)
    assert block["settings"]["budget_tokens"] == 0


def test_off_without_a_template_closes_at_once(server: Server) -> None:
    block = block_of(server, "completions", reasoning_effort="none")
    assert block["exit_reason"] == "budget"
    assert block["reasoning_tokens"] <= 2  # its first token, and the closing's line end


def test_budgets_join_the_policy_and_stream_and_whole_say_the_same(client: openai.OpenAI) -> None:
    asked = {"vllm_xargs": {"exit_policy": "confidence", "exit_threshold": 1.0}}
    options: Any = {
        "model": "demo-base",
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 0,
        "max_tokens": LIMIT,
        "extra_body": asked | {"thinking_budget": BUDGET},
    }
    whole = client.chat.completions.create(**options)
    for chunk in client.chat.completions.create(**options, stream=True):
        last = chunk
    for block in (whole.stepgrpo, last.stepgrpo):
        assert block["policy"] == "confidence+budget"
        assert block["exit_reason"] == "budget"
        assert block["settings"] == {
            "threshold": 1.0,
            "budget_tokens": BUDGET,
            "from": {
                "policy": "thinking_budget",
                "threshold": "vllm_xargs.exit_threshold",
                "budget_tokens": "thinking_budget",
            },
        }


def test_an_answer_fits_under_a_limit_smaller_than_the_reserve(server: Server) -> None:
    answer = ask(server, "chat/completions", limit=40, reasoning_effort="high")
    block = answer.json()["stepgrpo"]
    assert block["exit_reason"] == "budget"
    assert "answer" in visible(answer)


@pytest.mark.parametrize("endpoint", [*ENDPOINTS, "completions"])
@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"thinking_budget": "much"}, ("thinking_budget", "whole number")),
        ({"thinking_budget": 9, "thinking_budget_tokens": 8}, ("thinking_budget_tokens", "=9")),
        ({"max_thinking_tokens": 9}, ("max_thinking_tokens", "nvext")),
        ({"thinking_tokens_budget": 9}, ("thinking_tokens_budget", "thinking_token_budget")),
        ({"enable_thinking": False, "thinking_budget": 9}, ("enable_thinking", "thinking_budget")),
        ({"exit_policy": "none"}, ("exit_policy", "vllm_xargs")),
    ],
    ids=str,
)
def test_what_cannot_be_honored_is_refused_by_name(
    server: Server, endpoint: str, body: Any, names: tuple[str, ...]
) -> None:
    answer = ask(server, endpoint, **body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert all(name in error["message"] for name in names)
    if endpoint != "messages":  # Anthropic's shape has no place for it
        assert error["param"] in body
        assert error["type"] == "BadRequestError"


def test_a_bound_that_nothing_can_hold_is_refused(server: Server) -> None:
    answer = ask(server, "chat/completions", thinking_budget=9, ignore_eos=True)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "thinking_budget"
    assert "ignore_eos" in answer.json()["error"]["message"]


def test_the_log_says_how_the_model_thinks(server: Server) -> None:
    log = server.log.read_text()
    assert "Thinking as of family demo (recognized by its tokens): '<think>' to '</think>'" in log
    assert "switched off by enable_thinking" in log


@pytest.mark.parametrize(
    "model", [ChatCompletionRequest, CompletionRequest, ResponsesRequest, AnthropicMessagesRequest]
)
def test_no_field_of_vllms_is_taken_for_a_misspelt_one(model: Any) -> None:
    ours = {row.path.split(".")[0] for row in FOREIGN} | {"vllm_xargs"}
    body = dict.fromkeys(set(model.model_fields) - ours, 1)
    assert read_body(body) == ThinkingRequest()
    assert not set(PARAMETERS) & set(model.model_fields)
