"""The OpenAPI schema has this package's parameters, block, headers, routes and title."""

import asyncio
from importlib.metadata import version
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from schemathesis.core.result import Ok
from vllm.entrypoints.anthropic.api_router import router as messages
from vllm.entrypoints.openai.chat_completion.api_router import router as chat
from vllm.entrypoints.openai.completion.api_router import router as completions
from vllm.entrypoints.openai.responses.api_router import router as responses

from service.http.openapi import BLOCK, ENDPOINTS, TITLE
from service.http.responses import headers_of
from service.http.routes import Routes
from service.params import EVENTS, FOREIGN, PARAMETERS
from tests.support.service.reporting import BLOCK as EXAMPLE

Schema = dict[str, Any]


@pytest.fixture(scope="module")
def app() -> FastAPI:
    made = FastAPI()
    for router in (chat, completions, responses, messages):
        made.include_router(router)

    async def nothing(*_: Any) -> Any:
        return

    asyncio.run(Routes(nothing)({"type": "lifespan", "app": made}, nothing, nothing))
    return made


@pytest.fixture(scope="module")
def schema(app: FastAPI) -> Schema:
    return app.openapi()


def properties(schema: Schema, endpoint: str) -> Schema:
    content = schema["paths"][endpoint]["post"]["requestBody"]["content"]
    name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
    found: Schema = schema["components"]["schemas"][name]["properties"]
    return found


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_parameter_is_described_where_it_is_read(schema: Schema, endpoint: str) -> None:
    found = properties(schema, endpoint)
    for row in FOREIGN:
        place, _, leaf = row.path.rpartition(".")
        assert (place or leaf) in found, row.path
        assert not place or leaf in str(found[place]), row.path
    ours = found["vllm_xargs"]["anyOf"][0]["properties"]
    assert set(ours) == {*PARAMETERS, EVENTS}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_block_and_headers_are_described(schema: Schema, endpoint: str) -> None:
    answered = schema["paths"][endpoint]["post"]["responses"]["200"]
    block = answered["content"]["application/json"]["schema"]["properties"]["stepgrpo"]
    assert block == {"$ref": f"#/components/schemas/{BLOCK}"}
    assert set(EXAMPLE) <= set(schema["components"]["schemas"][BLOCK]["properties"])
    assert all(name.startswith("x-stepgrpo-") for name in answered["headers"])
    assert headers_of.__doc__


def test_routes_of_ours_are_there_and_the_name_is_ours(schema: Schema) -> None:
    assert schema["info"]["title"] == TITLE
    assert schema["info"]["version"] == version("stepgrpo")
    for path in ("/ready", "/v1/stepgrpo/savings", "/v1/stepgrpo/responses/{id}"):
        assert "get" in schema["paths"][path]


def test_the_schema_is_sound_and_stays_the_same(app: FastAPI, schema: Schema) -> None:
    assert app.openapi() is schema
    loaded = schemathesis.openapi.from_dict(schema)
    loaded.validate()
    assert all(isinstance(each, Ok) for each in loaded.get_all_operations())


def test_the_page_for_people_has_our_name(app: FastAPI) -> None:
    assert TITLE in TestClient(app).get("/docs").text
