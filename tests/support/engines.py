"""Real vLLM in this process, behind a client that records calls and can inject faults."""

import asyncio
import contextlib
import os
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM

from service.engine.client import EarlyExitEngine
from service.engine.observer import RequestObserver
from service.params.limits import ProbeLimits
from service.process.die_with_parent import end_engine_with_server
from service.process.engine_process import forking
from service.records.metrics import Metrics
from service.records.sequence import RequestContext, SequenceRecord, current_request
from stepgrpo_core import ExitSettings
from tests.support.models import PROBLEMS, TOKENIZER, prompt_ids
from tests.support.servers import EXECUTOR, MODEL, ROOT
from tests.support.zygote import SHARED

ADAPTER = LoRARequest("demo-step-grpo", 1, str(ROOT / "models" / "demo-step-grpo"))
PROMPTS = [prompt_ids(index) for index in range(len(PROBLEMS))]
ENVIRONMENT = SHARED | {"TORCHDYNAMO_DISABLE": "1"}
CAPACITY = 8  # concurrent sequences
BLOCKS = 44  # of 32 tokens
Fault = Callable[[AsyncIterator[RequestOutput]], AsyncIterator[RequestOutput]]


@dataclass
class Call:
    """One request to vLLM."""

    id: str
    prompt: dict[str, Any]
    params: SamplingParams
    options: dict[str, Any]
    cached_tokens: int | None = None
    """Prompt tokens found in the prefix cache."""
    tokens: int = 0
    outputs: int = 0
    """Number of outputs that delivered the tokens."""
    beside: int = 0
    """Sequences running when the request came."""
    probes_beside: int = 0
    ended: bool = False

    @property
    def is_probe(self) -> bool:
        return "-probe-" in self.id


@dataclass
class Border:
    """vLLM's engine client, which records all calls and applies `fault` to probes."""

    inner: AsyncLLM
    fault: Fault | None = None
    calls: list[Call] = field(default_factory=list)
    probing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a probe has started."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def generate(
        self, prompt: Any, params: SamplingParams, request_id: str, **options: Any
    ) -> AsyncIterator[RequestOutput]:
        running = [call for call in self.calls if not call.ended]
        call = Call(request_id, prompt, params, options)
        call.beside = sum(other.params.n for other in running)
        call.probes_beside = sum(other.is_probe for other in running)
        self.calls.append(call)
        if call.is_probe:
            self.probing.set()
        outputs = self._noted(call, self.inner.generate(prompt, params, request_id, **options))
        return self.fault(outputs) if self.fault and call.is_probe else outputs

    async def _noted(
        self, call: Call, outputs: AsyncIterator[RequestOutput]
    ) -> AsyncIterator[RequestOutput]:
        try:
            async for output in outputs:
                call.cached_tokens = call.cached_tokens or output.num_cached_tokens
                call.tokens += sum(len(each.token_ids) for each in output.outputs)
                call.outputs += 1
                yield output
        finally:
            call.ended = True

    @property
    def probes(self) -> list[Call]:
        return [call for call in self.calls if call.is_probe]


@dataclass
class Ours:
    """Our engine over the border, and the records of the requests that it served."""

    engine: EarlyExitEngine
    border: Border
    registry: CollectorRegistry

    async def ask(
        self,
        index: int = 0,
        policy: str | None = "confidence",
        *,
        salt: str | None = None,
        options: dict[str, Any] | None = None,
        xargs: dict[str, Any] | None = None,
        name: str = "r",
        prompt_ids: list[int] | None = None,
        tools: bool = False,
        **params: Any,
    ) -> tuple[list[list[int]], list[SequenceRecord]]:
        """Return the token ids of each sequence, and the records."""
        context = RequestContext(offers_tools=tools)
        token = current_request.set(context)
        asked = ({"exit_policy": policy} if policy else {}) | (xargs or {})
        sampling = SamplingParams(
            **{
                "temperature": 0.0,
                "max_tokens": 900,
                "output_kind": RequestOutputKind.DELTA,
                "extra_args": asked,
                "stop_token_ids": [TOKENIZER.eos_token_id],
            }
            | params
        )
        try:
            ids: list[list[int]] = [[] for _ in range(sampling.n)]
            prompt = tokens_input(prompt_ids or PROMPTS[index], cache_salt=salt)
            async for output in self.engine.generate(prompt, sampling, name, **(options or {})):
                for each in output.outputs:
                    ids[each.index] += each.token_ids
        finally:
            current_request.reset(token)
        return ids, context.sequences

    def counted(self, name: str) -> float:
        """Return one of our counters, summed over its labels."""
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"stepgrpo_{name}_total"
        )


@dataclass
class Machine:
    """An engine and the event loop in which it runs."""

    inner: AsyncLLM
    runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def ours(
        self,
        fault: Fault | None = None,
        policy: str = "none",
        *,
        settings: dict[str, Any] | None = None,
        journal: RequestObserver | None = None,
        **limits: Any,
    ) -> Ours:
        """Return a new engine of ours with this default policy and its settings, over the shared
        vLLM engine."""
        border, registry = Border(self.inner, fault), CollectorRegistry()
        engine = EarlyExitEngine(
            border,
            ExitSettings(policy=policy, **(settings or {})),
            metrics=Metrics(registry),
            limits=ProbeLimits(**limits),
            journal=journal,
        )
        return Ours(engine, border, registry)


@contextlib.contextmanager
def running_machine(**arguments: Any) -> Iterator[Machine]:
    """Run vLLM with the demo model."""
    os.environ.update(ENVIRONMENT)
    with asyncio.Runner() as runner:

        async def load() -> AsyncLLM:
            options = {
                "model": str(MODEL),
                "dtype": "float32",
                "max_model_len": 1024,
                "enforce_eager": True,
                "enable_chunked_prefill": False,
                "distributed_executor_backend": EXECUTOR,
                "seed": 0,
            }
            config = AsyncEngineArgs(**options | arguments).create_engine_config()
            end_engine_with_server()
            with warnings.catch_warnings(), forking(config):
                warnings.simplefilter("default")  # those of vLLM's process are not ours to fix
                return AsyncLLM.from_vllm_config(config)

        inner = runner.run(load())
        try:
            yield Machine(inner, runner)
        finally:
            inner.shutdown()
