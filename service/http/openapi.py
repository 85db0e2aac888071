"""What the application's OpenAPI schema says of us: parameters, block, headers and routes.

vLLM's own schema knows its parameters alone. Those of other ecosystems are described on each
endpoint that reads them, from the table that reads them.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from service.params import FOREIGN, PARAMETERS
from service.params.apis import BATCH, CHAT, COMPLETIONS, MESSAGES, RESPONSES
from service.params.effort import EFFORTS

__all__ = ["TITLE", "describe", "own_version"]

TITLE = "stepgrpo-serve"
ENDPOINTS = (CHAT, BATCH, COMPLETIONS, RESPONSES, MESSAGES)
BLOCK = "StepgrpoBlock"

Schema = dict[str, Any]

_TYPES: Mapping[str, Schema] = {
    "switch": {"type": "boolean"},
    "effort": {"type": "string", "enum": list(EFFORTS)},
    "budget": {"type": "integer", "minimum": -1},
}
_KINDS: Schema = {"type": "string", "enum": ["enabled", "disabled", "adaptive"]}
_OURS: Mapping[str, Schema] = {
    "exit_policy": {"type": "string", "examples": ["confidence", "confidence+budget", "none"]},
    "exit_threshold": {"type": "number", "minimum": 0, "maximum": 1},
    "exit_shadow": {"type": "boolean"},
    "exit_pattern": {"type": "string", "minLength": 1, "maxLength": 512},
}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_HEADERS: Mapping[str, str] = {
    "x-stepgrpo-reasoning-tokens": "Reasoning tokens of all sequences.",
    "x-stepgrpo-exit-reason": "Why the thinking ended; of a single sequence.",
    "x-stepgrpo-saved-tokens": "Tokens saved, and their 90 % interval; of a single sequence.",
    "x-stepgrpo-saved-method": "How that was found.",
}
_INTEGERS = (
    *("probes", "probe_tokens"),
    *("injected_tokens", "discarded_tokens"),
    *("judge_tokens", "failed_probes", "refused_probes"),
)
_TEXTS = ("policy", "abstained", "shadow_reason")
_COUNTED = ("steps", "reasoning_tokens", "cut_at")
"""Null where nothing is known of the thinking; `cut_at` also where it was not cut."""
_READY: Schema = {
    "get": {
        "tags": ["stepgrpo"],
        "summary": "Ready",
        "description": "Whether to send requests here: the state, and below it complaints.",
        "operationId": "ready",
        "responses": {
            "200": {"description": "It is", "content": {"text/plain": {"schema": {}}}},
            "503": {"description": "It is not", "content": {"text/plain": {"schema": {}}}},
        },
    }
}


def own_version() -> str:
    """Of this package; that of a checkout is not known."""
    try:
        return version("stepgrpo")
    except PackageNotFoundError:
        return "0"


def describe(made: Callable[[], Schema]) -> Callable[[], Schema]:
    """An application's ``openapi`` that says all of it; `made` is the one it has, and remembers
    what it returns."""
    done: list[Schema] = []

    def openapi() -> Schema:
        schema = made()
        if not done or done[0] is not schema:
            _add(schema)
            done[:] = [schema]
        return schema

    return openapi


def _add(schema: Schema) -> None:
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    schemas[BLOCK] = _block()
    schema["paths"]["/ready"] = _READY
    for endpoint in ENDPOINTS:
        operation = schema["paths"].get(endpoint, {}).get("post")
        if operation is not None:
            _add_response(operation)
            _add_parameters(schemas, operation)


def _add_response(operation: Schema) -> None:
    answered = operation["responses"]["200"]
    answered["headers"] = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()
    }
    content = answered.setdefault("content", {}).setdefault("application/json", {})
    block = {"$ref": f"#/components/schemas/{BLOCK}"}
    content["schema"] = {"type": "object", "properties": {"stepgrpo": block}}


def _add_parameters(schemas: Schema, operation: Schema) -> None:
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    properties = schemas[reference.rpartition("/")[2]]["properties"]
    properties.pop("thinking", None)  # vLLM's own takes no budget below 1 024
    for row in FOREIGN:
        kind = _KINDS if row.path == "thinking.type" else _TYPES[row.sets]
        _add_property(properties, row.path, kind, f"{row.sets} of the thinking ({row.ecosystem})")
    own = {name: _OURS.get(name, _COUNT) for name in PARAMETERS}
    properties["vllm_xargs"] = {
        "title": "Vllm Xargs",
        "description": "Exit policy of this request; other keys are other extensions'.",
        "anyOf": [{"type": "object", "properties": own}, {"type": "null"}],
    }


def _add_property(properties: Schema, path: str, kind: Schema, text: str) -> None:
    """Unless vLLM's schema has it. What stands in an object of its own is described there."""
    place, _, leaf = path.rpartition(".")
    if not place:
        nullable = {"anyOf": [dict(kind), {"type": "null"}]}
        properties.setdefault(leaf, nullable | {"title": leaf, "description": text})
        return
    holder = properties.setdefault(place, _holder(place))
    if holder.get("x-stepgrpo"):
        holder["anyOf"][0]["properties"][leaf] = dict(kind) | {"description": text}
    else:
        said = holder.get("description", "")
        holder["description"] = f"{said} Also `{leaf}`: {text}.".strip()


def _holder(place: str) -> Schema:
    inner: Schema = {"type": "object", "properties": {}}
    return {"title": place, "x-stepgrpo": True, "anyOf": [inner, {"type": "null"}]}


def _block() -> Schema:
    """The ``stepgrpo`` block; of several sequences it has one for each under ``choices``."""
    number, text = {"type": "integer"}, {"type": "string"}
    nullable = {"anyOf": [{"type": "object"}, {"type": "null"}]}
    return {
        "title": BLOCK,
        "type": "object",
        "description": "What became of the thinking, what it cost and what was saved.",
        "properties": {
            **dict.fromkeys(_TEXTS, text),
            **dict.fromkeys(_INTEGERS, number),
            "settings": {"type": "object"},
            **{name: {"anyOf": [number, {"type": "null"}]} for name in _COUNTED},
            "exit_reason": {"anyOf": [text, {"type": "null"}]},
            "confidence": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            "saved": nullable,
            "choices": {"type": "array", "items": {"type": "object"}},
        },
    }
