"""A server whose engine costs nothing: vLLM's engine core is replaced by a script.

Run as a file, with `stock` or `ours` and the server's flags. Everything of vLLM's API process is
real: HTTP, chat template, tokenizer, output processor, detokenizer, statistics. Only the client of
the engine core is scripted: each step it answers every running request with its next token, at
once. A request for log-probs is treated as a probe. `SCRIPT` names the JSON file with the token
ids of `main` and `probe`.
"""

import asyncio
import json
import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest, FinishReason
from vllm.v1.engine.core_client import EngineCoreClient
from vllm.v1.metrics.stats import PrefillStats, SchedulerStats
from vllm.v1.outputs import LogprobsLists

__all__ = ["SCRIPT", "ScriptedCore"]

SCRIPT = "STEPGRPO_BENCH_SCRIPT"
PROBE_LOGPROB = -0.7  # of every probe token: a confidence of 0.5, which is declined
ENTRY = {"stock": "vllm.entrypoints.launchers.api_server.entry", "ours": "service.cli"}


@dataclass(slots=True)
class _Playing:
    ids: list[int]
    limit: int
    scored: bool
    prompt_tokens: int
    done: int = 0


class ScriptedCore(EngineCoreClient):  # type: ignore[misc]
    """The engine core's client, with a script in place of the core."""

    def __init__(self, main: list[int], probe: list[int]) -> None:
        self.resources = SimpleNamespace(engine_dead=False)
        self.engine_ranks_managed = [0]
        self._main, self._probe = main, probe
        self._playing: dict[str, _Playing] = {}
        self._started = asyncio.Event()

    def shutdown(self, timeout: float | None = None) -> None:
        """Do nothing: there is no process."""

    async def get_supported_tasks_async(self) -> tuple[str, ...]:
        """Return that it generates."""
        return ("generate",)

    async def reset_mm_cache_async(self) -> None:
        """Do nothing: there is no cache."""

    async def add_request_async(self, request: EngineCoreRequest) -> None:
        """Start a request."""
        params = request.sampling_params
        assert params is not None
        scored = params.logprobs is not None
        ids = self._probe if scored else self._main
        prompt = len(request.prompt_token_ids or ())
        limit = min(params.max_tokens or len(ids), len(ids))
        self._playing[request.request_id] = _Playing(ids, limit, scored, prompt)
        self._started.set()

    async def abort_requests_async(self, request_ids: list[str]) -> None:
        """End requests."""
        for each in request_ids:
            self._playing.pop(each, None)

    async def get_output_async(self) -> EngineCoreOutputs:
        """Return the next token of every running request."""
        await asyncio.sleep(0)  # lets the readers of the last step run
        while not self._playing:
            self._started.clear()
            await self._started.wait()
        outputs = [self._step(name, each) for name, each in self._playing.items()]
        for output in outputs:
            if output.finish_reason is not None:
                del self._playing[output.request_id]
        stats = SchedulerStats(num_running_reqs=len(self._playing))
        return EngineCoreOutputs(outputs=outputs, scheduler_stats=stats)

    def _step(self, name: str, each: _Playing) -> EngineCoreOutput:
        token = each.ids[each.done]
        each.done += 1
        first, last = each.done == 1, each.done == each.limit
        return EngineCoreOutput(
            request_id=name,
            new_token_ids=[token],
            new_logprobs=_scored(token) if each.scored else None,
            finish_reason=FinishReason.STOP if last else None,
            prefill_stats=PrefillStats(each.prompt_tokens, each.prompt_tokens) if first else None,
        )


def _scored(token: int) -> LogprobsLists:
    return LogprobsLists(np.array([[token]]), np.array([[PROBE_LOGPROB]]), np.array([1]))


def main() -> None:
    """Run the server that the first argument names."""
    script = json.loads(Path(os.environ[SCRIPT]).read_text(encoding="utf-8"))

    def make(*_: Any, **__: Any) -> ScriptedCore:
        return ScriptedCore(script["main"], script["probe"])

    EngineCoreClient.make_async_mp_client = staticmethod(make)
    name = ENTRY[sys.argv.pop(1)]
    sys.path[0] = str(Path.cwd())  # not the folder of this file
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
