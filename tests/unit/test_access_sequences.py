"""Limits hold for values as vLLM's request schemas read them, on every endpoint."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import (
    BatchChatCompletionRequest,
    ChatCompletionRequest,
)
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.scale_out.token_in_token_out.protocol import GenerateRequest
from vllm.exceptions import VLLMValidationError

from service.access.bodies import MAX_CONVERSATIONS, MAX_ENTRIES, MAX_N, check_body
from service.access.refusals import Refused
from service.params.apis import BATCH

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]
NUMBERS: list[Any] = [
    *(3, "3", " 3 ", "+3", "03", "3.0", "3_0", 3.0, 3.5, "3.5", "three", "", None, True, False),
    *(-4, "-4", 0, [3], {"n": 3}, 10**30, "1e1", float("inf"), "0x3", "٣"),
]
PROMPTS: list[Any] = [
    *("a", ["a", "b", "c"], [1, 2, 3], [[1, 2], [3]], ["1", "2"], [1.0, 2.0], ["1", 2], [True, 2]),
    *([], [[]], None, [1, "a"], [1, [2]], ["a", [1]], [["a"], ["b"]], [["1"], [2]]),
]


def counted(body: dict[str, Any], route: str) -> int | str:
    """Return the sequences of a body, or the parameter for which it is refused."""
    try:
        return check_body(json.dumps(body).encode(), route)
    except Refused as refused:
        return str(refused.param)


def read(schema: type[Any], body: dict[str, Any]) -> Any:
    """Return a body as vLLM parses it, or None if vLLM refuses it."""
    try:
        return schema.model_validate(json.loads(json.dumps(body)))
    except (ValidationError, VLLMValidationError):
        return None


@pytest.mark.parametrize("n", NUMBERS, ids=repr)
@pytest.mark.parametrize(
    ("route", "schema", "body"),
    [
        (CHAT, ChatCompletionRequest, {"messages": MESSAGES}),
        (COMPLETIONS, CompletionRequest, {"prompt": "a"}),
        ("/invocations", ChatCompletionRequest, {"messages": MESSAGES}),
    ],
    ids=["chat", "completions", "invocations"],
)
def test_n_is_what_vllms_schema_reads(route: str, schema: Any, body: Any, n: Any) -> None:
    asked = read(schema, body | {"n": n})
    found = counted(body | {"n": n}, route)
    if asked is not None:
        n = 1 if asked.n is None else asked.n
        assert found == ("n" if n > MAX_N else max(n, 1))


@pytest.mark.parametrize("n", NUMBERS, ids=repr)
def test_n_of_sampling_parameters_counts_where_tokens_are_sent(n: Any) -> None:
    body = {"token_ids": [1], "sampling_params": {"n": n}}
    asked = read(GenerateRequest, body)
    if asked is not None:
        assert counted(body, "/inference/v1/generate") == max(asked.sampling_params.n, 1)


@pytest.mark.parametrize("n", [1, 5, "5", 5.0, "5.0"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=repr)
def test_every_prompt_has_its_n(prompt: Any, n: Any) -> None:
    body = {"prompt": prompt, "n": n}
    asked = read(CompletionRequest, body)
    if asked is not None:
        several = isinstance(asked.prompt, list) and not isinstance(
            next(iter(asked.prompt), 0), int
        )
        assert counted(body, COMPLETIONS) == asked.n * (len(asked.prompt) if several else 1)


def test_embeddings_are_prompts_too() -> None:
    assert counted({"prompt_embeds": ["a", "b", "c"], "n": "2"}, COMPLETIONS) == 6
    assert counted({"prompt": ["a"], "prompt_embeds": "b"}, COMPLETIONS) == 2


@pytest.mark.parametrize("n", ["500", 500.0, "500.0", " 500", "+500", 500])
@pytest.mark.parametrize("route", [CHAT, COMPLETIONS, "/root/v1/completions", "/invocations"])
def test_too_many_are_refused_however_they_are_written(route: str, n: Any) -> None:
    assert counted({"n": n, "prompt": "a"}, route) == "n"
    assert counted({"sampling_params": {"n": n}}, "/inference/v1/generate") == "n"


@pytest.mark.parametrize("route", [BATCH, f"/root{BATCH}"])
def test_every_conversation_of_a_batch_is_a_sequence(route: str) -> None:
    body = {"messages": [MESSAGES] * 200}
    assert read(BatchChatCompletionRequest, body) is not None
    assert counted(body, route) == 200
    assert counted({"messages": [MESSAGES] * (MAX_CONVERSATIONS + 1)}, route) == "messages"
    long = [MESSAGES[0]] * (MAX_ENTRIES["messages"] + 1)
    assert counted({"messages": [MESSAGES, long]}, route) == "messages"
    assert counted({"messages": MESSAGES * 2000}, CHAT) == 1
    odd: Any
    for odd in ("a", None, [], 5):
        assert counted({"messages": odd}, route) == 1


def test_every_item_that_is_scored_is_a_sequence() -> None:
    route = "/generative_scoring"
    assert counted({"query": "a", "items": ["b"] * 7}, route) == 7
    assert counted({"query": [1], "items": [[2], [3]], "n": 9}, route) == 2
    assert counted({"items": ["b"] * (MAX_ENTRIES["items"] + 1)}, route) == "items"
    assert counted({"items": []}, route) == counted({}, route) == 1


@pytest.mark.parametrize("route", ["/v1/messages", "/v1/responses"])
def test_where_a_schema_has_no_n_none_counts(route: str) -> None:
    assert counted({"n": 500, "prompt": ["a", "b"]}, route) == 1


def test_numbers_in_texts_are_several_prompts_as_for_vllm() -> None:
    union: TypeAdapter[Any] = TypeAdapter(CompletionRequest.__annotations__["prompt"])
    assert union.validate_python(["1", "2"]) == ["1", "2"]
    assert union.validate_python(["1", 2]) == [1, 2]
