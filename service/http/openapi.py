"""Additions to the application's OpenAPI schema: parameters, ``stepgrpo`` block, headers, routes.

vLLM's schema has only its own parameters. Parameters of other APIs are added to each endpoint that
accepts them, from the table that parses them.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from service.params import EVENTS, FOREIGN, PARAMETERS
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
_OWN_TYPES: Mapping[str, Schema] = {
    "exit_policy": {"type": "string", "examples": ["confidence", "confidence+budget", "none"]},
    "exit_threshold": {"type": "number", "minimum": 0, "maximum": 1},
    "exit_shadow": {"type": "boolean"},
    "exit_pattern": {"type": "string", "minLength": 1, "maxLength": 512},
    EVENTS: {"type": "boolean"},
}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_HEADERS: Mapping[str, str] = {
    "x-stepgrpo-reasoning-tokens": "Reasoning tokens of all sequences.",
    "x-stepgrpo-exit-reason": "Why the thinking ended; for a single sequence.",
    "x-stepgrpo-saved-tokens": "Tokens saved, with a 90 % interval; for a single sequence.",
    "x-stepgrpo-saved-method": "How the savings were estimated.",
}
_INTEGERS = (
    *("probes", "probe_tokens"),
    *("injected_tokens", "discarded_tokens"),
    *("judge_tokens", "failed_probes", "refused_probes"),
)
_TEXTS = ("policy", "abstained", "shadow_reason")
_COUNTED = ("steps", "reasoning_tokens", "cut_at")
"""Null if the thinking could not be followed; `cut_at` also if it was not truncated."""
_READY: Schema = {
    "get": {
        "tags": ["stepgrpo"],
        "summary": "Ready",
        "description": "Whether to send requests here: the state, and below it warnings.",
        "operationId": "ready",
        "responses": {
            "200": {"description": "Ready", "content": {"text/plain": {"schema": {}}}},
            "503": {"description": "Not ready", "content": {"text/plain": {"schema": {}}}},
        },
    }
}


def own_version() -> str:
    """Return the version of this package, or "0" in a checkout that is not installed."""
    try:
        return version("stepgrpo")
    except PackageNotFoundError:
        return "0"


def describe(made: Callable[[], Schema]) -> Callable[[], Schema]:
    """Return an ``openapi`` method with the additions; `made` is the application's own, which
    caches its result."""
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
    own = {name: _OWN_TYPES.get(name, _COUNT) for name in (*PARAMETERS, EVENTS)}
    properties["vllm_xargs"] = {
        "title": "Vllm Xargs",
        "description": "Exit policy of this request; other keys belong to other extensions.",
        "anyOf": [{"type": "object", "properties": own}, {"type": "null"}],
    }


def _add_property(properties: Schema, path: str, kind: Schema, text: str) -> None:
    """Add a property unless vLLM's schema has it; a nested one goes into its parent object."""
    parent, _, leaf = path.rpartition(".")
    if not parent:
        nullable = {"anyOf": [dict(kind), {"type": "null"}]}
        properties.setdefault(leaf, nullable | {"title": leaf, "description": text})
        return
    outer = properties.setdefault(parent, _object(parent))
    if outer.get("x-stepgrpo"):
        outer["anyOf"][0]["properties"][leaf] = dict(kind) | {"description": text}
    else:
        text_before = outer.get("description", "")
        outer["description"] = f"{text_before} Also `{leaf}`: {text}.".strip()


def _object(title: str) -> Schema:
    inner: Schema = {"type": "object", "properties": {}}
    return {"title": title, "x-stepgrpo": True, "anyOf": [inner, {"type": "null"}]}


def _block() -> Schema:
    """Return the schema of the block; with several sequences, each has one in ``choices``."""
    number, text = {"type": "integer"}, {"type": "string"}
    nullable = {"anyOf": [{"type": "object"}, {"type": "null"}]}
    return {
        "title": BLOCK,
        "type": "object",
        "description": "How the thinking ended, what it cost and what was saved.",
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
