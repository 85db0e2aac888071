"""Backends that generate paired continuations: the server's own engine, or another server.

A continuation in the server's own engine yields to requests: it stops while they queue and resumes
later where it stopped.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from service.clients.openai import OpenAIClient, RequestFailed, RequestRejected
from service.engine.request import LAST_PRIORITY, EngineRequest, ServedModel
from service.streams.engine_streams import extended_prompt
from service.streams.inbox import EngineStream, Inbox

__all__ = ["Continuation", "ContinuationBackend", "EngineBackend", "RemoteBackend"]

PATIENCE_SECONDS = 1.0  # without a token, after which a continuation yields


@dataclass(slots=True)
class Continuation:
    """A continuation and its progress."""

    request: EngineRequest
    """Request whose prompt and sampling parameters it uses."""
    model: str
    base: bool
    """Generate with the base model, without the adapter."""
    ids: list[int]
    """Token ids of the completion so far."""
    ended: bool = False
    text: str | None = None
    """Rest of the completion as text, from backends that return no ids."""
    length: int = field(default=0)
    """Tokens of the completion, once it has ended."""


class ContinuationBackend(Protocol):
    """Generates continuations."""

    def capacity(self) -> int:
        """Return how many continuations may run at the same time now."""

    async def resume(self, continuation: Continuation) -> None:
        """Start or resume a continuation. If it had to yield, it has not ended on return. Raises
        any failure."""

    async def close(self) -> None:
        """Release resources."""


class EngineBackend:
    """Continuations in the server's own engine, at the lowest priority."""

    def __init__(self, served: ServedModel, share: float, spent: Callable[[int], None]) -> None:
        self._spent = spent  # called with the number of tokens generated
        self._served = served
        self._share = share

    def capacity(self) -> int:
        """Return a share of the running sequences; 0 while requests queue."""
        load = self._served.load
        return 0 if load.saturated else max(1, int(self._share * (load.running + 1)))

    async def resume(self, continuation: Continuation) -> None:
        """Generate until the continuation ends or requests queue."""
        inbox: Inbox = asyncio.Queue()
        stream = EngineStream(
            self._served.engine,
            sequence=0,
            request_id=f"{continuation.request.request_id}-pair",
            prompt=extended_prompt(continuation.request.prompt, continuation.ids),
            params=_params(continuation.request.params, len(continuation.ids)),
            options=self._options(continuation),
            load=self._served.load,
            own=True,
        )
        stream.feed(inbox)
        try:
            await self._consume(continuation, inbox)
        finally:
            await stream.stop()
            while not inbox.empty():
                _extend(continuation, inbox.get_nowait()[1])
            self._spent(stream.tokens)

    async def _consume(self, continuation: Continuation, inbox: Inbox) -> None:
        while not continuation.ended and not self._served.load.waiting:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    _, item = await inbox.get()
            except TimeoutError:
                return
            if isinstance(item, Exception):
                raise item
            _extend(continuation, item)

    def _options(self, continuation: Continuation) -> dict[str, Any]:
        options = continuation.request.probe_options(priorities=self._served.priorities)
        if self._served.priorities:
            options["priority"] = LAST_PRIORITY
        if continuation.base:
            options.pop("lora_request", None)
        return options

    async def close(self) -> None:
        """Do nothing; there are no resources."""


def _extend(continuation: Continuation, item: object) -> None:
    if isinstance(item, RequestOutput) and not continuation.ended:
        completion = item.outputs[0]
        continuation.ids += completion.token_ids
        continuation.length = len(continuation.ids)
        continuation.ended = (
            completion.finish_reason is not None and completion.finish_reason != "abort"
        )


def _params(params: SamplingParams, spent: int) -> SamplingParams:
    """Return parameters for the rest of a continuation: unseeded sampling, ids only."""
    own = params.clone()
    own.n, own.seed = 1, None
    own.logprobs = own.prompt_logprobs = None
    own.output_kind, own.detokenize = RequestOutputKind.DELTA, False
    if own.max_tokens is not None:
        own.max_tokens -= spent
    own.min_tokens = max(own.min_tokens - spent, 0)
    return own


class RemoteBackend:
    """Continuations by another server that accepts prompts as token ids, such as vLLM."""

    MAX_CONCURRENT = 8

    def __init__(self, remote: OpenAIClient) -> None:
        self._remote = remote

    def capacity(self) -> int:
        """Return a constant: the remote server does its own admission control."""
        return self.MAX_CONCURRENT

    async def resume(self, continuation: Continuation) -> None:
        """Generate the rest in a single request. Raises RequestFailed."""
        continuation.text, tokens = await self._remote.run(lambda: self._request(continuation))
        continuation.length = len(continuation.ids) + tokens
        continuation.ended = True

    async def _request(self, continuation: Continuation) -> tuple[str, int]:
        with contextlib.suppress(RequestRejected):
            return await self._complete(
                continuation, _openai_body(continuation) | _vllm_extras(continuation.request.params)
            )
        return await self._complete(continuation, _openai_body(continuation))

    async def _complete(
        self, continuation: Continuation, body: Mapping[str, Any]
    ) -> tuple[str, int]:
        payload = {"model": continuation.model, **body}
        response = await self._remote.request("POST", "completions", payload)
        try:
            return str(response["choices"][0]["text"]), int(response["usage"]["completion_tokens"])
        except (TypeError, KeyError, IndexError, ValueError) as error:
            raise RequestFailed("garbage") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._remote.close()


def _openai_body(continuation: Continuation) -> dict[str, Any]:
    params = _params(continuation.request.params, len(continuation.ids))
    return {
        "prompt": [*continuation.request.prompt_ids, *continuation.ids],
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
    }


def _vllm_extras(params: SamplingParams) -> dict[str, Any]:
    return {
        "top_k": params.top_k,
        "min_p": params.min_p,
        "repetition_penalty": params.repetition_penalty,
        "skip_special_tokens": False,
        "vllm_xargs": {"exit_policy": "none"},  # another stepgrpo server must not exit
    }
