"""Where completions come from: an engine in this process, or a `stepgrpo-serve` that runs already.

An engine in this process may be spread over several GPUs by tensor parallelism. Data parallelism is
a server's: ``stepgrpo-serve MODEL --data-parallel-size 8`` behind `--server`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from stepgrpo_core import InvalidSetting
from training.evaluation.origin import device_kind, engine_version, origin
from training.evaluation.records import Contender
from training.rollouts.batch import (
    Delta,
    Format,
    Request,
    Rollout,
    RolloutEngine,
    RolloutRequest,
    run_rollouts,
)
from training.rollouts.remote import RemoteRollouts
from training.run.adapters import as_model
from training.run.checkpoints import RunStopped

__all__ = ["HERE", "KEPT", "Completer", "EngineSettings", "LocalEngine", "RemoteEngine"]

KEPT = "what was finished is kept: run the same command again"
Finished = Callable[[Rollout], None]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What makes the completions. Raises InvalidSetting."""

    tensor_parallel_size: int = 1
    """GPUs over which an engine in this process is spread."""
    gpu_memory_utilization: float | None = None
    """Share of each GPU's memory for it; None: vLLM's default."""
    server: str | None = None
    """URL of a `stepgrpo-serve` that makes them instead."""

    def __post_init__(self) -> None:
        share, server = self.gpu_memory_utilization, self.server
        if self.tensor_parallel_size < 1:
            raise InvalidSetting("tensor_parallel_size", self.tensor_parallel_size, "use 1 or more")
        if share is not None and not 0 < share <= 1:
            remedy = "use more than 0, at most 1"
            raise InvalidSetting("gpu_memory_utilization", share, remedy)
        if server is not None and (share is not None or self.tensor_parallel_size > 1):
            raise InvalidSetting("server", server, "set the engine's memory and GPUs there")

    def version(self) -> str:
        """What the completions depend on: vLLM's version and where it runs.

        Raises InvalidSetting for a server that does not answer.
        """
        if self.server is not None:
            return f"vllm {server_version(self.server)} on a server"
        size = self.tensor_parallel_size
        spread = f" x {size}" if size > 1 else ""
        return f"vllm {engine_version()} {device_kind()}{spread}"


HERE = EngineSettings()
"""One engine in this process, on one GPU."""


def server_version(url: str) -> str:
    """vLLM's version on the server at `url`; raises InvalidSetting."""
    try:
        response = httpx.get(f"{url.rstrip('/')}/version", timeout=30)
        return str(response.raise_for_status().json()["version"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        remedy = f"no stepgrpo-serve answers there ({error!r}); its URL has no path, not /v1"
        raise InvalidSetting("server", url, remedy) from error


class Completer(Protocol):
    """Makes the completions of one model, under any of its contenders' policies."""

    @property
    def made_with(self) -> Mapping[str, Any]:
        """What the records say of where they were made."""

    def complete(
        self,
        jobs: Sequence[RolloutRequest],
        contender: Contender,
        form: Format,
        finished: Finished,
    ) -> None:
        """Complete every job; `finished` is called for each. Raises RunStopped."""


class LocalEngine:
    """vLLM in this process."""

    def __init__(
        self,
        model: str,
        settings: EngineSettings,
        stopping: Callable[[], bool],
        **options: Any,
    ) -> None:
        """Load `model`; `options` are vLLM's."""
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
        self,
        jobs: Sequence[RolloutRequest],
        contender: Contender,
        form: Format,
        finished: Finished,
    ) -> None:
        """Complete every job, with an empty prefix cache at first."""
        from training.rollouts.vllm_engine import VllmEngine  # noqa: PLC0415 - loads vLLM

        self._llm.reset_prefix_cache()
        engine = _Stoppable(VllmEngine(self._llm.llm_engine), self._stopping)
        run_rollouts(engine, jobs, contender.exit, form, finished=finished)


@dataclass(frozen=True, slots=True)
class RemoteEngine:
    """A `stepgrpo-serve` at `url`; contenders are models that it serves under their names."""

    url: str
    stopping: Callable[[], bool]

    @property
    def made_with(self) -> Mapping[str, Any]:
        """As far as the server tells."""
        return {
            "versions": {"vllm": server_version(self.url)},
            "hardware": f"the server {self.url}",
            "commit": None,
            "dtype": "the server's",
            "revision": None,
        }

    def complete(
        self,
        jobs: Sequence[RolloutRequest],
        contender: Contender,
        form: Format,
        finished: Finished,
    ) -> None:
        """Complete every job over HTTP. Raises RemoteFailure, and InvalidSetting for settings that
        requests cannot carry."""

        def take(rollout: Rollout) -> None:
            if self.stopping():
                raise RunStopped(f"stopped; {KEPT}")
            finished(rollout)

        rollouts = RemoteRollouts(self.url, contender.served, contender.exit, form.thinking)
        rollouts.run(jobs, take)


@dataclass(frozen=True, slots=True)
class _Stoppable:
    """An engine that stops between two steps when asked to."""

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
