"""An application of vLLM's own request schemas and error handlers over the scripted engine.

It shows how a body is changed on its way to the engine, without a model.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from types import SimpleNamespace
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CollectorRegistry
from transformers import AutoTokenizer
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.chat_completion.protocol import (
    BatchChatCompletionRequest,
    ChatCompletionRequest,
)
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.sampling_params import SamplingParams

from benchmarks.serving.scripted_engine import ScriptedClient
from service.engine.client import EarlyExitEngine
from service.http.responses import ResponseReporter
from service.http.sdk_compatibility import SdkCompatibility
from service.params import Effective
from service.params.apis import BATCH, CHAT, COMPLETIONS, INVOCATIONS, MESSAGES, RESPONSES
from service.records.metrics import Metrics
from stepgrpo_core import ExitSettings
from tests.support.servers import MODEL

TALK = [{"role": "user", "content": "1+1"}]
PROPER: dict[str, dict[str, Any]] = {
    CHAT: {"messages": TALK, "max_tokens": 500},
    BATCH: {"messages": [TALK, TALK], "max_tokens": 500},
    COMPLETIONS: {"prompt": "1+1", "max_tokens": 500},
    RESPONSES: {"input": "1+1", "max_output_tokens": 500},
    MESSAGES: {"model": "scripted", "messages": TALK, "max_tokens": 500},
    INVOCATIONS: {"messages": TALK, "max_tokens": 500},
}
"""A body of each endpoint that generates."""
LIMIT = 500


class SeenEngine(EarlyExitEngine):
    """An engine that records the effective parameters of each request."""

    def __init__(self, settings: ExitSettings, **options: Any) -> None:
        tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
        ids = tokenizer.encode("<think>\n1+1=2\n</think>\n\n2", add_special_tokens=False)
        client = ScriptedClient(tokenizer, ids, [""] * len(ids), ids[:1])
        super().__init__(client, settings, metrics=Metrics(CollectorRegistry()), **options)
        self.client = client
        self.seen: list[Effective] = []
        self.prompt_ids = tokenizer.encode(
            "<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n"
        )

    def _generate(self, request: Any, effective: Effective, *rest: Any) -> Any:
        self.seen.append(effective)
        return super()._generate(request, effective, *rest)


class Asked:
    """The response to a request, and its effective parameters."""

    def __init__(self, response: httpx.Response, seen: list[Effective]) -> None:
        self.status = response.status_code
        self.text = response.text
        self.headers = response.headers
        self.seen = seen

    @property
    def error(self) -> dict[str, Any]:
        """Return the error of a refusal."""
        error: dict[str, Any] = json.loads(self.text)["error"]
        return error


class Application:
    """The endpoints, called one after the other in one event loop."""

    def __init__(self, policy: str = "confidence", **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self.engine = self._run(_made(ExitSettings(policy), options))
        self.app = _application(self.engine)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://scripted")

    def ask(self, path: str, body: Mapping[str, Any]) -> Asked:
        """Post a body."""
        self.engine.seen.clear()
        headers = {"content-type": "application/json"}
        content = json.dumps(body)  # httpx would reject NaN
        response = self._run(self._http.post(path, content=content, headers=headers))
        return Asked(response, list(self.engine.seen))

    def close(self) -> None:
        """Stop playing."""
        self._run(self._http.aclose())
        self._run(self.engine.client.close())
        self._loop.close()

    def _run(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)


async def _made(settings: ExitSettings, options: Mapping[str, Any]) -> SeenEngine:
    return SeenEngine(settings, **options)


def _application(engine: SeenEngine) -> FastAPI:
    app = FastAPI()
    init_exception_handler(app)
    app.state.args = SimpleNamespace(log_error_stack=False)
    app.state.engine_client = engine
    app.add_middleware(ResponseReporter)
    app.add_middleware(SdkCompatibility)

    async def answered(request: Any, params: list[SamplingParams]) -> Response:
        runs = [_generated(engine, each) for each in params]
        if request.stream:
            return StreamingResponse(_events(runs), media_type="text/event-stream")
        return JSONResponse(await _whole(runs))

    @app.post(CHAT)
    @app.post(INVOCATIONS)
    async def chat(request: ChatCompletionRequest, _: Request) -> Response:
        request.build_chat_params(None, "auto")
        return await answered(request, [request.to_sampling_params(LIMIT, {})])

    @app.post(BATCH)
    async def batch(request: BatchChatCompletionRequest, _: Request) -> Response:
        each = [request.to_chat_completion_request(messages) for messages in request.messages]
        return await answered(each[0], [one.to_sampling_params(LIMIT, {}) for one in each])

    @app.post(COMPLETIONS)
    async def completions(request: CompletionRequest, _: Request) -> Response:
        return await answered(request, [request.to_sampling_params(LIMIT, {})])

    @app.post(MESSAGES)
    async def messages(request: AnthropicMessagesRequest, _: Request) -> Response:
        converted = AnthropicServingMessages.to_chat_completion_request(request)
        return await answered(converted, [converted.to_sampling_params(LIMIT, {})])

    @app.post(RESPONSES)
    async def responses(request: ResponsesRequest, _: Request) -> Response:
        request.build_chat_params(None, "auto")
        params = request.to_sampling_params(LIMIT, {})
        if request.stream:  # vLLM's response starts before the engine is called
            return StreamingResponse(_late(engine, params), media_type="text/event-stream")
        return await answered(request, [params])

    return app


def _generated(engine: SeenEngine, params: SamplingParams) -> AsyncGenerator[Any, None]:
    prompt = {"type": "token", "prompt_token_ids": engine.prompt_ids}
    return engine.generate(prompt, params, f"chatcmpl-x_{len(engine.seen)}")


async def _whole(runs: list[AsyncGenerator[Any, None]]) -> dict[str, Any]:
    for run in runs:
        async for _ in run:
            pass
    return {"id": "x", "object": "scripted", "usage": {"completion_tokens": 1}}


async def _events(runs: list[AsyncGenerator[Any, None]]) -> AsyncGenerator[bytes, None]:
    for run in runs:
        async for _ in run:
            yield b'data: {"choices":[{}]}\n\n'
    yield b'data: {"choices":[],"usage":{"completion_tokens":1}}\n\ndata: [DONE]\n\n'


async def _late(engine: SeenEngine, params: SamplingParams) -> AsyncGenerator[bytes, None]:
    yield b'event: response.created\ndata: {"response":{}}\n\n'
    yield b'event: response.in_progress\ndata: {"response":{}}\n\n'
    async for _ in _generated(engine, params):
        yield b"event: response.output_text.delta\ndata: {}\n\n"
    yield b'event: response.completed\ndata: {"response":{"usage":{"output_tokens":1}}}\n\n'
