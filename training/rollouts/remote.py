"""Rollouts from a remote `stepgrpo-serve`, which truncates in the same way.

Each rank sends its own requests over HTTP. No rank waits for another, so the number of calls may
differ between ranks. Start the server with ``--logprobs-mode processed_logprobs``, so log-probs
are those of the distribution that was sampled from.
"""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import openai

from stepgrpo_core import ExitReason, ExitSettings, InvalidSetting, Outcome, ThinkingFormat
from training.rollouts.batch import Rollout, RolloutRequest

__all__ = ["RemoteFailure", "RemoteRollouts", "checked_key"]

SENT = ("policy", "threshold", "max_probes", "min_tokens", "min_interval", "pattern")
RETRIES = 3  # after connection errors, HTTP 429 and 5xx


class RemoteFailure(RuntimeError):
    """The server could not be reached, refused, or is not a `stepgrpo-serve`."""


def checked_key(api_key: str | None) -> str:
    """Return the API key to send, "none" without one, which the client insists on.

    Raises InvalidSetting for a key that no header can carry; the message does not contain it.
    """
    key = (api_key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InvalidSetting("api_key", "(not shown)", "use printable ASCII characters")
    return key or "none"


class RemoteRollouts:
    """Runs requests on the server at `url`, at most `concurrency` at once.

    Raises InvalidSetting if `settings` differ from the defaults in a field that requests cannot
    carry.
    """

    def __init__(
        self,
        url: str,
        model: str,
        settings: ExitSettings,
        thinking: ThinkingFormat,
        *,
        api_key: str | None = None,
        concurrency: int = 128,
        timeout_seconds: float = 3600,
    ) -> None:
        _check_carried(settings)
        self._url, self._model = url.rstrip("/"), model
        self._settings, self._thinking = settings, thinking
        self._api_key = checked_key(api_key)
        self._concurrency, self._timeout = concurrency, timeout_seconds

    def run(
        self, requests: Sequence[RolloutRequest], finished: Callable[[Rollout], None] | None = None
    ) -> list[Rollout]:
        """Return the rollout of every request, in their order; raises RemoteFailure."""
        try:
            return asyncio.run(self._run(requests, finished))
        except ExceptionGroup as group:  # usually they have one cause
            raise group.exceptions[0] from None

    async def _run(
        self, requests: Sequence[RolloutRequest], finished: Callable[[Rollout], None] | None
    ) -> list[Rollout]:
        slots = asyncio.Semaphore(self._concurrency)
        async with openai.AsyncOpenAI(
            base_url=f"{self._url}/v1",
            api_key=self._api_key,
            timeout=self._timeout,
            max_retries=RETRIES,
        ) as client:

            async def one(place: int, request: RolloutRequest) -> Rollout:
                async with slots:
                    response = await self._complete(client, self._body(request))
                rollout = dataclasses.replace(self._rollout(request, response), place=place)
                if finished:
                    finished(rollout)
                return rollout

            async with asyncio.TaskGroup() as group:  # one failure cancels all requests
                tasks = [
                    group.create_task(one(place, request)) for place, request in enumerate(requests)
                ]
        return [task.result() for task in tasks]

    async def _complete(self, client: openai.AsyncOpenAI, body: Mapping[str, Any]) -> Any:
        until = time.monotonic() + self._timeout
        while True:
            try:
                return await client.post("/completions", cast_to=object, body=body)
            except openai.APIStatusError as error:
                if error.status_code == 429 and time.monotonic() < until:
                    continue  # others use up the key's limit; the client has waited as it was asked
                reason = f"HTTP {error.status_code}: {error.response.text[:500]}"
            except openai.APIConnectionError as error:
                reason = repr(error.__cause__ or error)
            raise RemoteFailure(
                f"{self._url} gave no rollout ({reason}); check that stepgrpo-serve runs there "
                f"with model {self._model!r}, and OPENAI_API_KEY if it needs a key"
            )

    def _body(self, request: RolloutRequest) -> dict[str, Any]:
        sampling = {
            name: value
            for name, value in dataclasses.asdict(request.sampling).items()
            if value is not None and name != "stop_token_ids"
        }
        settings = self._settings if request.truncated else _untruncated(self._settings)
        exits = {f"exit_{name}": getattr(settings, name) for name in SENT}
        return {
            "model": self._model,
            "prompt": list(request.prompt_ids),
            "logprobs": 0,
            "return_token_ids": True,
            "vllm_xargs": {name: value for name, value in exits.items() if value is not None},
            **sampling,
        }

    def _rollout(self, request: RolloutRequest, response: Mapping[str, Any]) -> Rollout:
        if "stepgrpo" not in response:
            raise RemoteFailure(
                f"{self._url} answered without a `stepgrpo` block: it is another server, and "
                "would not truncate; start stepgrpo-serve"
            )
        choice, block = response["choices"][0], response["stepgrpo"]
        if "cut_at" not in block:
            raise RemoteFailure(f"{self._url} does not say where it cut; update stepgrpo-serve")
        ids = tuple(choice["token_ids"])
        injected = _injected(block, len(ids))
        put = set(itertools.compress(ids, injected))
        by_text = bool(self._thinking.end_text)  # any tokens may write it
        if put and not by_text and self._thinking.end_id not in put:
            raise RemoteFailure(f"{self._url} closed the thinking of another model's family")
        return Rollout(
            prompt_ids=request.prompt_ids,
            ids=ids,
            logprobs=tuple(
                None if put else value
                for put, value in zip(injected, choice["logprobs"]["token_logprobs"], strict=True)
            ),
            injected=injected,
            outcome=_outcome(block),
            thinking_open=request.thinking_open,
            ended=choice["finish_reason"] == "stop",
            probe_tokens=block["probe_tokens"],
            discarded_tokens=block["discarded_tokens"],
        )


def _injected(block: Mapping[str, Any], length: int) -> tuple[bool, ...]:
    """Return the (L,) mask of the closing tokens, which follow the cut if there was one."""
    start = length if block["cut_at"] is None else block["cut_at"]
    return tuple(start <= place < start + block["injected_tokens"] for place in range(length))


def _outcome(block: Mapping[str, Any]) -> Outcome:
    confidence = block["confidence"]
    return Outcome(
        reason=ExitReason(block["exit_reason"]),
        steps=block["steps"],
        reasoning_tokens=block["reasoning_tokens"],
        probes=block["probes"],
        failed_probes=block.get("failed_probes", 0),
        confidences=() if confidence is None else (confidence,),
        shadow_reason=None,
    )


def _untruncated(settings: ExitSettings) -> ExitSettings:
    return dataclasses.replace(settings, policy="none", pattern=None)


def _check_carried(settings: ExitSettings) -> None:
    default = ExitSettings()
    for field in dataclasses.fields(ExitSettings):
        value = getattr(settings, field.name)
        if field.name not in SENT and value != getattr(default, field.name):
            remedy = "requests cannot carry it; leave the default, or let rollouts run colocated"
            raise InvalidSetting(f"rollout.exit.{field.name}", value, remedy)
