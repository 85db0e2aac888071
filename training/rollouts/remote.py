"""Rollouts from a remote `stepgrpo-serve`, which truncates in the same way.

Each rank sends its own requests over HTTP. No rank waits for another, so the number of calls may
differ between ranks. Start the server with ``--logprobs-mode processed_logprobs``, so log-probs
are those of the distribution that was sampled from.
"""

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from stepgrpo_core import ExitReason, ExitSettings, InvalidSetting, Outcome, ThinkingFormat
from training.rollouts.batch import Rollout, RolloutRequest

__all__ = ["RemoteFailure", "RemoteRollouts"]

SENT = ("policy", "threshold", "max_probes", "min_tokens", "min_interval", "pattern")
ATTEMPTS = 4  # after transport errors and HTTP 429 and 503


class RemoteFailure(RuntimeError):
    """The server could not be reached, refused, or is not a `stepgrpo-serve`."""


class RemoteRollouts:
    """Runs jobs on the server at `url`, at most `concurrency` at once.

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
        concurrency: int = 128,
        timeout_seconds: float = 3600,
    ) -> None:
        _check_carried(settings)
        self._url, self._model = url.rstrip("/"), model
        self._settings, self._thinking = settings, thinking
        self._concurrency, self._timeout = concurrency, timeout_seconds

    def run(
        self, jobs: Sequence[RolloutRequest], finished: Callable[[Rollout], None] | None = None
    ) -> list[Rollout]:
        """Complete every job; return the rollouts in the order of `jobs`. Raises RemoteFailure."""
        try:
            return asyncio.run(self._run(jobs, finished))
        except ExceptionGroup as group:  # usually they have one cause
            raise group.exceptions[0] from None

    async def _run(
        self, jobs: Sequence[RolloutRequest], finished: Callable[[Rollout], None] | None
    ) -> list[Rollout]:
        limits = httpx.Limits(max_connections=self._concurrency)
        async with httpx.AsyncClient(
            base_url=self._url, timeout=httpx.Timeout(self._timeout), limits=limits
        ) as client:

            async def one(place: int, job: RolloutRequest) -> Rollout:
                response = await self._complete(client, self._body(job))
                rollout = dataclasses.replace(self._rollout(job, response), place=place)
                if finished:
                    finished(rollout)
                return rollout

            async with asyncio.TaskGroup() as group:  # one failure cancels all requests
                tasks = [group.create_task(one(place, job)) for place, job in enumerate(jobs)]
        return [task.result() for task in tasks]

    async def _complete(self, client: httpx.AsyncClient, body: Mapping[str, Any]) -> Any:
        error = "no attempt"
        for attempt in range(ATTEMPTS):
            try:
                response = await client.post("/v1/completions", json=body)
            except httpx.TransportError as fault:
                error = repr(fault)
            else:
                if response.status_code == 200:
                    return response.json()
                error = f"HTTP {response.status_code}: {response.text[:500]}"
                if response.status_code not in (429, 503):
                    break
            await asyncio.sleep(2**attempt)
        raise RemoteFailure(
            f"{self._url} gave no rollout ({error}); check that stepgrpo-serve runs there with "
            f"model {self._model!r}"
        )

    def _body(self, job: RolloutRequest) -> dict[str, Any]:
        sampling = {
            name: value
            for name, value in dataclasses.asdict(job.sampling).items()
            if value is not None and name != "stop_token_ids"
        }
        settings = self._settings if job.truncated else _untruncated(self._settings)
        exits = {f"exit_{name}": getattr(settings, name) for name in SENT}
        return {
            "model": self._model,
            "prompt": list(job.prompt_ids),
            "logprobs": 0,
            "return_token_ids": True,
            "vllm_xargs": {name: value for name, value in exits.items() if value is not None},
            **sampling,
        }

    def _rollout(self, job: RolloutRequest, response: Mapping[str, Any]) -> Rollout:
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
            prompt_ids=job.prompt_ids,
            ids=ids,
            logprobs=tuple(
                None if put else value
                for put, value in zip(injected, choice["logprobs"]["token_logprobs"], strict=True)
            ),
            injected=injected,
            outcome=_outcome(block),
            thinking_open=job.thinking_open,
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
