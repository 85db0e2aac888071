"""Where paired runs are made: in the server's own engine, or by another server.

In the engine a run gives way: it stops while requests queue, and goes on later where it stopped.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from service.clients.openai import Failed, NotUnderstood, Remote
from service.engine.request import LAST_PRIORITY, EngineRequest, ServedModel
from service.streams.engine_streams import EngineStream, Inbox, extended_prompt

__all__ = ["Continuation", "ContinuationBackend", "EngineBackend", "RemoteBackend"]

PATIENCE_SECONDS = 1.0  # without a token, a run in the engine gives way


@dataclass(slots=True)
class Continuation:
    """A run as far as it has come."""

    job: EngineRequest
    """Whose prompt and sampling parameters it has."""
    model: str
    base: bool
    """Of the base model, without an adapter."""
    ids: list[int]
    """Of the completion."""
    ended: bool = False
    text: str | None = None
    """Of the completion, where it comes without ids."""
    length: int = field(default=0)
    """Tokens of the completion, once it has ended."""


class ContinuationBackend(Protocol):
    """Makes runs."""

    def capacity(self) -> int:
        """How many runs may be under way now."""

    async def resume(self, run: Continuation) -> None:
        """Make or go on with a run; it has not ended yet if it had to give way. Raises whatever
        goes wrong."""

    async def close(self) -> None:
        """Free what it holds."""


class EngineBackend:
    """ContinuationBackend in the server's own engine, at the lowest priority."""

    def __init__(self, served: ServedModel, share: float, spent: Callable[[int], None]) -> None:
        self._spent = spent  # is told how many tokens the engine generated for a run
        self._served = served
        self._share = share

    def capacity(self) -> int:
        """A share of what runs; none while requests queue."""
        load = self._served.load
        return 0 if load.crowded else max(1, int(self._share * (load.running + 1)))

    async def resume(self, run: Continuation) -> None:
        """Generate until it ends or others wait."""
        inbox: Inbox = asyncio.Queue()
        stream = EngineStream(
            self._served.engine,
            inbox,
            sequence=0,
            request_id=f"{run.job.request_id}-pair",
            prompt=extended_prompt(run.job.prompt, run.ids),
            params=_params(run.job.params, len(run.ids)),
            options=self._options(run),
            load=self._served.load,
        )
        try:
            await self._follow(run, inbox)
        finally:
            await stream.stop()
            while not inbox.empty():
                _take(run, inbox.get_nowait()[1])
            self._spent(stream.tokens)

    async def _follow(self, run: Continuation, inbox: Inbox) -> None:
        while not run.ended and not self._served.load.waiting:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    _, item = await inbox.get()
            except TimeoutError:
                return
            if isinstance(item, Exception):
                raise item
            _take(run, item)

    def _options(self, run: Continuation) -> dict[str, Any]:
        options = run.job.probe_options(priorities=self._served.priorities)
        if self._served.priorities:
            options["priority"] = LAST_PRIORITY
        if run.base:
            options.pop("lora_request", None)
        return options

    async def close(self) -> None:
        """Nothing is held."""


def _take(run: Continuation, item: object) -> None:
    if isinstance(item, RequestOutput) and not run.ended:
        completion = item.outputs[0]
        run.ids += completion.token_ids
        run.length = len(run.ids)
        run.ended = completion.finish_reason is not None and completion.finish_reason != "abort"


def _params(params: SamplingParams, spent: int) -> SamplingParams:
    """Of what is left of a run: free draws, of which ids are all that is read."""
    own = params.clone()
    own.n, own.seed = 1, None
    own.logprobs = own.prompt_logprobs = None
    own.output_kind, own.detokenize = RequestOutputKind.DELTA, False
    if own.max_tokens is not None:
        own.max_tokens -= spent
    own.min_tokens = max(own.min_tokens - spent, 0)
    return own


class RemoteBackend:
    """ContinuationBackend by another server that reads prompts as token ids, such as vLLM."""

    AT_ONCE = 8

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def capacity(self) -> int:
        """It looks after its own load."""
        return self.AT_ONCE

    async def resume(self, run: Continuation) -> None:
        """Have all that is left made in one request; raises Failed."""
        run.text, tokens = await self._remote.guarded(lambda: self._ask(run))
        run.length = len(run.ids) + tokens
        run.ended = True

    async def _ask(self, run: Continuation) -> tuple[str, int]:
        with contextlib.suppress(NotUnderstood):
            return await self._say(run, _plain(run) | _of_vllm(run.job.params))
        return await self._say(run, _plain(run))

    async def _say(self, run: Continuation, body: Mapping[str, Any]) -> tuple[str, int]:
        said = {"model": run.model, **body}
        response = await self._remote.request("POST", "completions", said)
        try:
            return str(response["choices"][0]["text"]), int(response["usage"]["completion_tokens"])
        except (TypeError, KeyError, IndexError, ValueError) as error:
            raise Failed("garbage") from error

    async def close(self) -> None:
        """Free the connections."""
        await self._remote.close()


def _plain(run: Continuation) -> dict[str, Any]:
    params = _params(run.job.params, len(run.ids))
    return {
        "prompt": [*run.job.prompt_ids, *run.ids],
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
    }


def _of_vllm(params: SamplingParams) -> dict[str, Any]:
    return {
        "top_k": params.top_k,
        "min_p": params.min_p,
        "repetition_penalty": params.repetition_penalty,
        "skip_special_tokens": False,
        "vllm_xargs": {"exit_policy": "none"},  # another one of ours must not exit either
    }
