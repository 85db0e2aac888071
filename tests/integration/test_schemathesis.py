"""F16: no request that Schemathesis makes from the server's OpenAPI schema is a server's error.

What is generated for vLLM's routes is mostly refused at once, so half of the bodies are a proper
one with some fields of a generated one. Our routes answer what they document.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.core.result import Ok
from schemathesis.schemas import BaseSchema

from service.params import EVENTS, FOREIGN, PARAMETERS
from tests.support.chat import messages
from tests.support.servers import Server, check_accounts

pytestmark = [pytest.mark.integration, pytest.mark.slow]

Test = TypeVar("Test", bound=Callable[..., None])
SEEDS = (1, 2, 3)
EXAMPLES = 40
PROMPT = messages()[0]["content"]
PROPER: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": messages(), "max_tokens": 4},
    "/v1/completions": {"prompt": PROMPT, "max_tokens": 4},
    "/v1/responses": {"input": PROMPT, "max_output_tokens": 4},
    "/v1/messages": {"messages": messages(), "max_tokens": 4},
}
OURS = {
    ("/v1/stepgrpo/savings", "GET"),
    ("/v1/stepgrpo/settings", "GET"),
    ("/v1/stepgrpo/responses", "GET"),
    ("/v1/stepgrpo/responses/{id}", "GET"),
    ("/v1/chat/completions/{id}/finish-thinking", "POST"),
    ("/v1/completions/{id}/finish-thinking", "POST"),
    ("/v1/responses/{id}/finish-thinking", "POST"),
    ("/v1/messages/{id}/finish-thinking", "POST"),
}
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
# Values for which vLLM 0.31 answers 500, each with its reason: left out.
VLLMS_OWN = {
    '"refusal"': "an earlier message of the Responses API that refused: "
    "_construct_message_from_response_item reads its text, and a refusal has none",
}


@pytest.fixture(scope="module", autouse=True)
def noise(server: Server) -> Iterator[None]:
    """vLLM logs tracebacks of some bodies that it refuses; a test reads the log for ours."""
    begin = server.log.stat().st_size
    yield
    server.noisy.append((begin, server.log.stat().st_size))


@pytest.fixture(scope="module")
def schema(server: Server) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def examples(seed: int, count: int = EXAMPLES) -> Callable[[Test], Test]:
    """Always the same ones for a seed."""

    def decorate(test: Test) -> Test:
        settings = hypothesis.settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        return hypothesis.seed(seed)(settings(test))

    return decorate


def check(server: Server, statuses: Counter[int]) -> None:
    """It has answered, lives, and has counted all."""
    assert statuses
    assert httpx.get(f"{server.url}/ready").status_code == 200
    server.wait_idle(10)
    check_accounts(server.metrics())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("path", PROPER)
def test_f16_bodies_of_vllms_routes(
    server: Server, schema: BaseSchema, path: str, seed: int
) -> None:
    statuses = Counter[int]()

    @examples(seed)
    @hypothesis.given(schema[path]["POST"].as_strategy(), st.data())
    def ask(case: Case[Any], data: st.DataObject) -> None:
        case.body = bounded(case.body, path, data)
        written = json.dumps(case.body, default=str)
        hypothesis.assume(not any(value in written for value in VLLMS_OWN))
        response = case.call(base_url=server.url, timeout=60)
        statuses[response.status_code] += 1
        assert response.status_code < 500, (case.body, response.text)
        assert b"Traceback" not in response.content

    ask()
    assert statuses[200]
    assert statuses[400]
    check(server, statuses)


def bounded(body: Any, path: str, data: st.DataObject) -> Any:
    """The body with the model that is served and few tokens; or a proper one with parts of it."""
    if not isinstance(body, dict):
        return body
    if data.draw(st.booleans()) and body:
        names = data.draw(st.lists(st.sampled_from(sorted(body)), max_size=3, unique=True))
        body = PROPER[path] | {name: body[name] for name in names}
    limits = [name for name in ("max_completion_tokens",) if name in body]
    limits += [name for name in PROPER[path] if name.startswith("max_")]
    return body | {"model": "demo-base"} | dict.fromkeys(limits, 4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("path", "method"), sorted(OURS))
def test_f16_our_routes_answer_as_they_document(
    server: Server, schema: BaseSchema, path: str, method: str, seed: int
) -> None:
    statuses = Counter[int]()

    @examples(seed)
    @hypothesis.given(schema[path][method].as_strategy())
    def ask(case: Case[Any]) -> None:
        response = case.call(base_url=server.url, timeout=60)
        statuses[response.status_code] += 1
        case.validate_response(response)

    ask()
    check(server, statuses)


@pytest.mark.parametrize("seed", SEEDS)
def test_f16_our_parameters_with_any_value(server: Server, seed: int) -> None:
    statuses = Counter[int]()
    xargs = st.dictionaries(st.sampled_from([*sorted(PARAMETERS), EVENTS]), JSON, max_size=3)
    foreign = st.dictionaries(st.sampled_from([each.path for each in FOREIGN]), JSON, max_size=2)

    @examples(seed, 2 * EXAMPLES)
    @hypothesis.given(xargs, foreign)
    def ask(xargs: dict[str, Any], foreign: dict[str, Any]) -> None:
        body = {"model": "demo-base", "vllm_xargs": xargs} | PROPER["/v1/chat/completions"]
        for path, value in foreign.items():
            outer, _, inner = path.partition(".")
            body[outer] = {inner: value} if inner else value
        headers = {"content-type": "application/json"}
        url = f"{server.url}/v1/chat/completions"
        response = httpx.post(url, content=json.dumps(body), headers=headers, timeout=60)
        statuses[response.status_code] += 1
        assert response.status_code in (200, 400), (body, response.text)

    ask()
    assert statuses[200]
    check(server, statuses)


def test_f16_all_routes_of_ours_are_in_the_schema(schema: BaseSchema) -> None:
    found: set[tuple[str, str]] = set()
    for each in schema.get_all_operations():
        assert isinstance(each, Ok)
        found.add((each.ok().path, each.ok().method.upper()))
    assert {each for each in found if "stepgrpo" in each[0] or "finish" in each[0]} == OURS
