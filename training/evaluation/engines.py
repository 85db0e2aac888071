"""Engines that generate completions: vLLM in this process, or a running `stepgrpo-serve`.

Tensor parallelism can spread an engine in this process over several GPUs. For data parallelism use
a server: ``stepgrpo-serve MODEL --data-parallel-size 8`` behind `--server`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

import httpx

from stepgrpo_core import InvalidSetting
from training.evaluation.origin import device_kind, engine_version, origin
from training.evaluation.records import Contender, EngineSettings
from training.rollouts.batch import (
    Delta,
    Format,
    Request,
    Rollout,
    RolloutEngine,
    RolloutRequest,
    run_rollouts,
)
from training.rollouts.remote import RemoteRollouts, checked_key
from training.run.adapters import as_model
from training.run.checkpoints import RunStopped

__all__ = ["KEPT", "Completer", "LocalEngine", "RemoteEngine", "version_of"]

KEPT = "what was finished is kept: run the same command again"
Requests = Sequence[RolloutRequest]
Finished = Callable[[Rollout], None]


def version_of(settings: EngineSettings) -> str:
    """Return vLLM's version and the device it runs on, which completions depend on.

    Raises InvalidSetting for a server that does not answer.
    """
    if settings.server is not None:
        return f"vllm {server_version(settings.server, settings.api_key)} on a server"
    size = settings.tensor_parallel_size
    spread = f" x {size}" if size > 1 else ""
    return f"vllm {engine_version()} {device_kind()}{spread}"


def server_version(url: str, api_key: str | None = None) -> str:
    """Return vLLM's version on the server at `url`; raises InvalidSetting."""
    headers = {"Authorization": f"Bearer {checked_key(api_key)}"}
    try:
        response = httpx.get(f"{url.rstrip('/')}/version", headers=headers, timeout=30)
        return str(response.raise_for_status().json()["version"])
    except httpx.HTTPStatusError as error:
        remedy = f"it answers HTTP {error.response.status_code}: use its URL without a path"
        if error.response.status_code == HTTPStatus.UNAUTHORIZED:
            remedy = "set OPENAI_API_KEY to an API key that it accepts"
        raise InvalidSetting("server", url, remedy) from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        remedy = f"no stepgrpo-serve answers there ({error!r}); its URL has no path, not /v1"
        raise InvalidSetting("server", url, remedy) from error


class Completer(Protocol):
    """Generates the completions of one model, under any of its contenders' policies."""

    @property
    def made_with(self) -> Mapping[str, Any]:
        """Return the versions, hardware and commit that the records store."""

    def complete(
        self, requests: Requests, contender: Contender, form: Format, finished: Finished
    ) -> None:
        """Complete every request; call `finished` for each. Raises RunStopped."""


class LocalEngine:
    """vLLM in this process."""

    def __init__(
        self,
        model: str,
        settings: EngineSettings,
        stopping: Callable[[], bool],
        **options: Any,
    ) -> None:
        """Load `model`; `options` are passed to vLLM."""
        from vllm import LLM  # noqa: PLC0415 - slow to load

        if settings.gpu_memory_utilization is not None:
            options["gpu_memory_utilization"] = settings.gpu_memory_utilization
        with as_model(model) as path:
            self._llm: Any = LLM(
                model=path,
                tensor_parallel_size=settings.tensor_parallel_size,
                logprobs_mode="processed_logprobs",
                **options,
            )
        self._stopping = stopping
        config = self._llm.llm_engine.model_config
        self.made_with: Mapping[str, Any] = {
            **origin(),
            "dtype": str(config.dtype).removeprefix("torch."),
            "revision": getattr(config.hf_config, "_commit_hash", None),
        }

    def complete(
        self, requests: Requests, contender: Contender, form: Format, finished: Finished
    ) -> None:
        """Complete every request, starting with an empty prefix cache."""
        from training.rollouts.vllm_engine import VllmEngine  # noqa: PLC0415 - loads vLLM

        self._llm.reset_prefix_cache()
        engine = _Stoppable(VllmEngine(self._llm.llm_engine), self._stopping)
        run_rollouts(engine, requests, contender.exit, form, finished=finished)


@dataclass(frozen=True, slots=True)
class RemoteEngine:
    """A `stepgrpo-serve` at `url`, which serves each contender's model under its name."""

    url: str
    stopping: Callable[[], bool]
    api_key: str | None = field(default=None, repr=False)

    @property
    def made_with(self) -> Mapping[str, Any]:
        """Return the origin as far as the server reports it."""
        return {
            "versions": {"vllm": server_version(self.url, self.api_key)},
            "hardware": f"the server {self.url}",
            "commit": None,
            "dtype": "the server's",
            "revision": None,
        }

    def complete(
        self, requests: Requests, contender: Contender, form: Format, finished: Finished
    ) -> None:
        """Complete every request over HTTP.

        Raises RemoteFailure, and InvalidSetting for settings that requests cannot carry.
        """

        def take(rollout: Rollout) -> None:
            if self.stopping():
                raise RunStopped(f"stopped; {KEPT}")
            finished(rollout)

        rollouts = RemoteRollouts(
            self.url, contender.served, contender.exit, form.thinking, api_key=self.api_key
        )
        rollouts.run(requests, take)


@dataclass(frozen=True, slots=True)
class _Stoppable:
    """An engine that can be stopped between two steps."""

    engine: RolloutEngine
    stopping: Callable[[], bool]

    def add(self, request: Request) -> None:
        self.engine.add(request)

    def abort(self, request_ids: Sequence[str]) -> None:
        self.engine.abort(request_ids)

    def step(self) -> Sequence[Delta]:
        if self.stopping():
            raise RunStopped(f"stopped; {KEPT}")
        return self.engine.step()
