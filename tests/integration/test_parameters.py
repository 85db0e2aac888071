"""Parameters, limits and blocks on the real server: a sample of what unit tests walk in full."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from service.bench import bench_command
from service.params import FOREIGN, PARAMETERS
from service.params.apis import BATCH
from tests.support.chat import EXIT, chat, exited, messages
from tests.support.servers import MODEL, Server

pytestmark = pytest.mark.integration

PROPER: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": messages(), "max_tokens": 8},
    BATCH: {"messages": [messages(), messages(1)], "max_tokens": 8},
    "/v1/completions": {"prompt": "1+1=", "max_tokens": 8},
    "/v1/responses": {"input": "1+1=", "max_output_tokens": 8},
    "/v1/messages": {"messages": messages(), "max_tokens": 8},
    "/invocations": {"messages": messages(), "max_tokens": 8},
}
WAYS = [
    (path, stream) for path in PROPER for stream in (False, True) if path != BATCH or not stream
]
PATHS = [*(row.path for row in FOREIGN), *(f"vllm_xargs.{name}" for name in PARAMETERS)]
VALUES = [10**30, "x", {}, [1], float("nan")]
MINE, YOURS = ({"authorization": f"Bearer {key}"} for key in ("mine", "yours"))


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as made:
        yield made


def post(http: httpx.Client, path: str, body: dict[str, Any], **options: Any) -> httpx.Response:
    headers = {"content-type": "application/json"} | options
    content = json.dumps({"model": "demo-base", "temperature": 0} | body)
    return http.post(path, content=content, headers=headers)


def with_value(path: str, parameter: str, value: Any, stream: bool) -> dict[str, Any]:
    place, _, leaf = parameter.rpartition(".")
    asked = {place: {leaf: value}} if place else {leaf: value}
    return PROPER[path] | asked | ({"stream": True} if stream else {})


@pytest.mark.parametrize(("path", "stream"), WAYS)
def test_wrong_values_are_refused_by_name_on_every_endpoint(
    server: Server, http: httpx.Client, path: str, stream: bool
) -> None:
    begin = server.log.stat().st_size
    for number, parameter in enumerate(PATHS):
        value = VALUES[number % len(VALUES)]
        if parameter.endswith(("exit_policy", "exit_pattern")):
            value = "(?=nobody-may-read-this)"
        answer = post(http, path, with_value(path, parameter, value, stream))
        assert answer.status_code == 400, (parameter, value, answer.text)
        error = answer.json()["error"]
        assert error["param"] == parameter, (parameter, value, error)
        assert error["message"].startswith(f"{parameter}={value!r}"[:60])
    said = server.log.read_bytes()[begin:]
    assert b"nobody-may-read-this" not in said
    assert b"ERROR" not in said


@pytest.mark.parametrize(("path", "stream"), WAYS)
def test_bounds_and_efforts_are_taken_on_every_endpoint(
    http: httpx.Client, path: str, stream: bool
) -> None:
    for parameter, value in (("thinking_budget", 2), ("reasoning_effort", "minimal")):
        answer = post(http, path, with_value(path, parameter, value, stream))
        assert answer.status_code == 200, answer.text
        assert f'"budget_tokens":"{parameter}"' in answer.text


def test_a_batch_is_bounded_as_its_chats_are(http: httpx.Client) -> None:
    body = {"messages": [messages(0), messages(1)], "max_tokens": 200, "thinking_budget": 5}
    answer = post(http, BATCH, body).json()
    for number, each in enumerate(answer["stepgrpo"]["choices"]):
        assert (each["index"], each["exit_reason"]) == (number, "budget")
        assert each["reasoning_tokens"] <= 6
        alone = {**body, "messages": messages(number)}
        single = post(http, "/v1/chat/completions", alone).json()["choices"][0]["message"]
        assert answer["choices"][number]["message"]["reasoning"] == single["reasoning"]
        assert "\\boxed{" in single["content"]


def test_entropy_needs_nothing_but_its_name(client: openai.OpenAI) -> None:
    for policy in ("entropy", "entropy+confidence", "consistency+entropy+budget"):
        block = chat(client, xargs={"exit_policy": policy}, max_tokens=60).stepgrpo
        assert block["policy"] == policy


def test_the_helper_of_openais_client_has_the_block(client: openai.OpenAI) -> None:
    index, _ = exited(client)
    with client.chat.completions.stream(
        model="demo-base",
        messages=messages(index),
        temperature=0,
        max_tokens=900,
        seed=0,
        stream_options={"include_usage": True},
        extra_body={"vllm_xargs": EXIT},
    ) as stream:
        last: Any
        *_, last = (event.chunk for event in stream if event.type == "chunk")
        final: Any = stream.get_final_completion()
    assert final.usage.stepgrpo["exit_reason"] == "confident"
    assert final.usage.stepgrpo["saved"] == last.stepgrpo["saved"]


def test_a_block_is_found_by_the_id_of_its_response(
    client: openai.OpenAI, http: httpx.Client
) -> None:
    index, _ = exited(client)
    *_, last = chat(client, index, stream=True)
    path = f"/v1/stepgrpo/responses/{last.id}"
    found = http.get(path, headers={"authorization": f"Bearer {client.api_key}"}).json()
    assert http.get(path).status_code == 404  # to whom did not ask
    assert (found["id"], found["object"]) == (last.id, "stepgrpo.response")
    assert found["stepgrpo"] == last.stepgrpo
    for path in ("/v1/responses", "/v1/messages", "/v1/completions", BATCH):
        answer = post(http, path, PROPER[path]).json()
        found = http.get(f"/v1/stepgrpo/responses/{answer['id']}").json()
        assert found["stepgrpo"] == answer["stepgrpo"]
    missing = http.get("/v1/stepgrpo/responses/chatcmpl-none")
    assert missing.status_code == 404
    assert "with this id" in missing.json()["error"]["message"]


def test_only_the_key_that_asked_finds_its_block(guarded: Server) -> None:
    with httpx.Client(base_url=guarded.url, timeout=120) as http:
        answer = post(http, "/v1/chat/completions", PROPER["/v1/chat/completions"], **MINE).json()
        path = f"/v1/stepgrpo/responses/{answer['id']}"
        assert http.get(path).status_code == 401
        assert http.get(path, headers=YOURS).status_code == 404
        assert http.get(path, headers=MINE).json()["stepgrpo"] == answer["stepgrpo"]


@pytest.mark.parametrize("n", ["5", 5.0, "5.0", 5])
def test_seats_of_a_key_hold_however_many_are_written(guarded: Server, n: Any) -> None:
    """A key has four."""
    with httpx.Client(base_url=guarded.url, timeout=120) as http:
        for path, body in (
            ("/v1/chat/completions", PROPER["/v1/chat/completions"] | {"n": n}),
            ("/v1/completions", PROPER["/v1/completions"] | {"n": n}),
            ("/v1/completions", {"prompt": ["1+1="] * 5, "max_tokens": 1}),
            (BATCH, {"messages": [messages()] * 5, "max_tokens": 1}),
            ("/invocations", PROPER["/invocations"] | {"n": n}),
        ):
            answer = post(http, path, body, **MINE)
            assert answer.status_code == 400, (path, answer.text)
            assert "asks for 5 sequences" in answer.json()["error"]["message"]
        several = PROPER["/v1/completions"] | {"n": "2", "temperature": 1}
        assert post(http, "/v1/completions", several, **MINE).status_code == 200


def test_ids_models_and_errors_are_as_clients_expect(http: httpx.Client) -> None:
    answer = post(http, "/v1/completions", PROPER["/v1/completions"], **{"x-request-id": "job 7"})
    assert answer.headers["x-request-id"] == "job 7"
    assert "job 7" in answer.json()["id"]
    assert http.get("/v1/models/demo-base").json()["id"] == "demo-base"
    assert http.head("/v1/models").status_code == 200
    assert http.get("/v1/models/other").status_code == 404
    wrong = post(http, "/v1/messages", PROPER["/v1/messages"] | {"model": "other"}).json()
    assert (wrong["type"], wrong["error"]["type"]) == ("error", "not_found_error")


def test_the_schema_and_its_page_are_ours(http: httpx.Client) -> None:
    schema = http.get("/openapi.json").json()
    assert schema["info"]["title"] == "stepgrpo-serve"
    assert "stepgrpo-serve" in http.get("/docs").text
    assert "thinking_budget" in str(schema["components"]["schemas"]["ChatCompletionRequest"])
    assert {"/ready", "/v1/stepgrpo/responses/{id}"} <= set(schema["paths"])


def test_the_benchmark_of_vllm_measures_the_server(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--base-url", server.url, "--model", "demo-base", "--tokenizer", str(MODEL)]
    flags += ["--dataset-name", "random", "--random-input-len", "8", "--random-output-len", "4"]
    bench_command([*flags, "--num-prompts", "2", "--disable-tqdm"])
    said = capsys.readouterr().out
    assert re.search(r"Successful requests:\s+2\b", said), said
