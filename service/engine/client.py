"""`EarlyExitEngine`: vLLM's engine client, with `generate` under an exit policy.

Everything else is vLLM's. The wrapper owns admission and drain: a draining vLLM engine refuses
every new request, including the request for the answer after an exit. So new users are refused
first, admitted requests end, and then the engine is shut down.
"""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from vllm.engine.protocol import EngineClient
from vllm.exceptions import GracefulHTTPError, QueueOverflowError, VLLMValidationError
from vllm.inputs import TokensPrompt
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from service.clients.judge import JudgeClient, JudgeServer
from service.engine.controlled import ControlledRequest
from service.engine.dispatch import Dispatcher
from service.engine.hooks import EngineHooks
from service.engine.observer import RequestObserver
from service.engine.opening import Openings, prepend_end
from service.engine.passthrough import PassthroughRequest
from service.engine.policy_resolver import Calibrated, PolicyResolver
from service.engine.request import EngineRequest, own_budget, served_model
from service.engine.response_parser import ResponseParser
from service.engine.unmarked import UnmarkedThoughts
from service.load.admission import Admission
from service.load.drain import Drain
from service.load.probe_load import load_of
from service.load.running import RunningRequests, client_ids
from service.params import EFFORT, BadParameter, Effective, ThinkingRequest
from service.params.limits import ProbeLimits
from service.params.model import model_of
from service.params.reasoning_parser import parser_of
from service.records.metrics import Metrics
from service.records.reasons import Abstained
from service.records.recent import RecentResponses, kept_response
from service.records.sequence import (
    COMBINED,
    RequestContext,
    SequenceRecord,
    current_request,
)
from stepgrpo_core import Baseline, ExitSettings, PolicyFailed
from stepgrpo_core.families.table import Family
from stepgrpo_core.families.thinking import special_ids
from stepgrpo_core.savings.holdout import Arm

__all__ = ["EarlyExitEngine"]

_log = logging.getLogger("vllm.stepgrpo")  # below vLLM's logger, so its format and level apply


class EarlyExitEngine:
    """Replaces vLLM's engine client; delegates all but generation, admission and drain."""

    def __init__(
        self,
        inner: EngineClient,
        defaults: ExitSettings,
        *,
        effort: Mapping[str, int | float | None] = EFFORT,
        family: str | None = None,
        families: Mapping[str, Family] = MappingProxyType({}),
        chat_template: str | None = None,
        demanded: bool = False,
        calibrations: Mapping[str | None, Baseline] = MappingProxyType({}),
        metrics: Metrics | None = None,
        limits: ProbeLimits | None = None,
        savings: EngineHooks | None = None,
        judge: JudgeServer | None = None,
        journal: RequestObserver | None = None,
        stop_in_thinking: bool = False,
        with_tools: bool = False,
        calibrated: Calibrated | None = None,
    ) -> None:
        tokenizer = inner.renderer.tokenizer
        grammars = inner.vllm_config.structured_outputs_config
        model = model_of(
            tokenizer,
            defaults,
            family=family,
            families=families,
            chat_template=chat_template,
            parser=parser_of(grammars.reasoning_parser, tokenizer),
            demanded=demanded,
        )
        self._inner = inner
        self.savings = savings or EngineHooks()
        self._defaults = model.settings
        under = {name: each.under(model.settings) for name, each in calibrations.items()}
        self._calibrations = under  # by adapter; None: the base model
        self._metrics = metrics or Metrics()
        self._journal = journal or RequestObserver()
        limits = limits or ProbeLimits()
        config = inner.vllm_config
        self._served = served_model(
            inner,
            model.writing,
            load_of(inner, limits, self._metrics.busy),
            probe_timeout=limits.probe_timeout,
            judge=JudgeClient(judge, on_judgment=self._metrics.judged) if judge else None,
            pairs=self.savings.makes_pairs,
        )
        self.template = model.template
        self._resolver = PolicyResolver(
            self._served,
            self._defaults,
            limits,
            effort,
            max_model_len=inner.model_config.max_model_len,
            prefix_caching=bool(config.cache_config.enable_prefix_caching),
            grammars_wait=bool(grammars.reasoning_parser) and not grammars.enable_in_reasoning,
            is_off=self._is_off,
            with_tools=with_tools,
            calibrated=calibrated,
        )
        self._dispatcher = Dispatcher(
            self._served, self._resolver, stop_in_thinking=stop_in_thinking
        )
        self._openings = Openings(
            tokenizer,
            self._served.thinking,
            frozenset() if model.writing is None else special_ids(tokenizer, chat_template),
            model.turn,
            ResponseParser(grammars.reasoning_parser, tokenizer, inner.model_config),
        )
        self._admission = Admission(inner)
        self.running = RunningRequests()
        self.recent = RecentResponses()
        self.drain = Drain(self._admission, self.running)
        self._closing: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False
        self._lost = False
        self._unmarked = UnmarkedThoughts(self._defaults.markers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    # Life cycle.

    async def warm_up(self) -> None:
        """Generate one token as a readiness check, then start serving."""
        generates = "generate" in await self._inner.get_supported_tasks()
        if generates and not self._inner.model_config.is_encoder_decoder:
            params = SamplingParams(max_tokens=1, detokenize=False)
            prompt = TokensPrompt(prompt_token_ids=[0])
            async for _ in self._inner.generate(prompt, params, "stepgrpo-proof"):
                self._metrics.proved(self._model_name(), self._defaults.policy)
        if not self._resolver.prefix_caching:
            _log.warning("Prefix caching is off, and probes would cost their prefix: none is put.")
        self._loop = asyncio.get_running_loop()
        self.drain.attach()
        self._metrics.watch(self._loop)
        self.savings.start(self._served, self._metrics, self._model_name(), self._resolver)

    @property
    def lost(self) -> bool:
        """True if the engine's process ended unexpectedly."""
        return self._lost or (not self._stopped and self._inner.errored)

    @property
    def errored(self) -> bool:
        """Always False, so that vLLM's API refuses requests to a lost engine with 503, not 500."""
        return False

    async def check_health(self) -> None:
        """Liveness check: raises if the engine is lost, but not while it is being stopped."""
        if self.lost:
            raise self._inner.dead_error

    @property
    def readiness(self) -> Literal["starting", "ready", "stalled", "draining", "lost"]:
        """Readiness for new requests."""
        if self.lost:
            return "lost"
        if self._admission.closed:
            return "draining"
        if self._served.load.stalled:
            return "stalled"
        return "ready" if self._loop else "starting"

    @property
    def defaults(self) -> Effective:
        """The exit settings of requests that have none."""
        return Effective(self._defaults)

    @property
    def warnings(self) -> list[str]:
        """Problems of a ready server that an operator should know."""
        return self.savings.warnings()

    # Admission and drain.

    def check_admission(self, n: int = 1, request_id: str | None = None) -> None:
        """Admit or refuse `n` sequences, as `Admission.admit` does."""
        del request_id  # part of vLLM's interface
        if self.lost:
            raise QueueOverflowError
        self._admission.admit(n, current_request.get())

    def refusal(self, n: int) -> GracefulHTTPError | None:
        """Return the error that would refuse a new request of `n` sequences now; None: admitted."""
        return QueueOverflowError() if self.lost else self._admission.refusal(n)

    def reserve(self, n: int) -> contextlib.AbstractContextManager[bool]:
        """Reserve `n` sequences for a request that is being read; yields whether a limit exists."""
        return self._admission.reserve(n)

    def shutdown(self, timeout: float | None = None) -> None:
        """Let admitted requests end, for at most `timeout` seconds, then stop the engine."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self.savings.stop(), self._loop)
        self.drain.wait(timeout or 0, lambda: self.lost)
        self._lost = self.lost
        self._stopped = True
        self._inner.shutdown(timeout=max(self.drain.deadline - time.monotonic(), 0))

    async def release(self) -> None:
        """Close the connections to the judge at the end."""
        if self._served.judge is not None:
            await self._served.judge.close()

    # Generating.

    def generate(
        self, prompt: Any, sampling_params: SamplingParams, request_id: str, **options: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        """Return the outputs of one request; raises VLLMValidationError for bad parameters."""
        context = current_request.get()
        if context is not None:
            self._admission.claim(sampling_params.n, context)
        context = context or RequestContext()
        try:
            request, asked = own_budget(
                EngineRequest(request_id, prompt, sampling_params, options),
                context.thinking_request,
            )
            request = self._openings.resolve(request)
            effective = self._resolver.effective(request, asked, tools=context.offers_tools)
        except BadParameter as error:
            raise VLLMValidationError(str(error), parameter=error.parameter) from error
        except PolicyFailed as error:
            _log.error("%s; no exit for this request.", error)
            without = dataclasses.replace(self._defaults, policy="none")
            effective = Effective(without, abstained=Abstained.POLICY_ERROR)
        return self._generate(request, effective, context, context.next_prompt())

    def check_parameters(self, xargs: Mapping[str, Any] | None, asked: ThinkingRequest) -> None:
        """Check the parameters that do not depend on the prompt; raises BadParameter."""
        with contextlib.suppress(PolicyFailed):  # `generate` then serves without exits and logs it
            self._resolver.wanted(xargs, asked)

    async def _generate(
        self, request: EngineRequest, effective: Effective, context: RequestContext, prompt: int
    ) -> AsyncGenerator[RequestOutput, None]:
        settings = effective.settings
        conversation = context.conversation(prompt)
        arm = self.savings.assign_arm(request, effective, conversation)
        records = self._records(request, effective, arm, first=prompt * request.params.n)
        self.savings.assign_stratum(request, records)
        if arm is not None and arm.control:
            request, settings = self.savings.as_control(request, settings)
        self.savings.prepare(records, conversation, exits=settings.policy != "none")
        request = self._journal.begin(
            request,
            records,
            context.arrived,
            batch=context.batch,
            events=context.events,
            markers=settings.markers,
        )
        run = self._dispatcher.run(request, settings, records)
        context.sequences += records
        ids = client_ids(request.request_id, batch=context.batch)
        context.ids |= ids
        self._count_in(records, context)
        try:
            with self.running.track(context.caller, ids, run):
                async with contextlib.aclosing(run.outputs()) as outputs:
                    async for output in outputs:
                        self._deliver(output, records, request)
                        if output.finished and (kept := kept_response(context)):
                            self.recent.keep(context.caller, context.ids, kept)
                        yield prepend_end(output, request.opening.end)
        except Exception:
            for record in records:
                record.status = record.status or "failed"
            raise
        finally:
            self._end(request, run, records)

    def _end(
        self,
        request: EngineRequest,
        run: ControlledRequest | PassthroughRequest,
        records: list[SequenceRecord],
    ) -> None:
        """Release the resources of a request and close its records.

        If the client left, this runs inside a canceled scope, where nothing can be awaited, so
        the clean-up gets its own task.
        """
        if run.closed:
            self._count_out(request, records)
            return
        task = asyncio.create_task(self._close(request, run, records))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(
        self,
        request: EngineRequest,
        run: ControlledRequest | PassthroughRequest,
        records: list[SequenceRecord],
    ) -> None:
        try:
            await run.close()
        finally:
            self._count_out(request, records)

    # Records.

    def _records(
        self, request: EngineRequest, effective: Effective, arm: Arm | None, *, first: int
    ) -> list[SequenceRecord]:
        prompt_tokens = len(request.prompt_ids) if request.has_ids else 0
        name = request.adapter or self._model_name()
        return [
            SequenceRecord(
                index,
                name,
                effective.settings.policy,
                prompt_tokens,
                settings=effective.as_block(),
                adapter=request.adapter,
                abstained=effective.abstained,
                arm=arm,
                joined=self._joins(effective.settings.policy),
                first=first,
            )
            for index in range(request.params.n)
        ]

    def _count_in(self, records: list[SequenceRecord], context: RequestContext) -> None:
        self._admission.start(len(records), context)
        for record in records:
            self._metrics.started(record)

    def _count_out(self, request: EngineRequest, records: list[SequenceRecord]) -> None:
        for record in records:
            record.status = record.status or "aborted"
            self._metrics.ended(record)
            self._unmarked.ended(record)
            self.savings.ended(request, record, self._calibrations.get(record.adapter))
        self._admission.end(len(records))
        self._journal.end(records)

    def _deliver(
        self, output: RequestOutput, records: list[SequenceRecord], request: EngineRequest
    ) -> None:
        """Record an output before it is sent; the last one of a sequence settles its record."""
        deltas = request.params.output_kind is RequestOutputKind.DELTA
        for completion in output.outputs:
            record = records[completion.index]
            ended = completion.finish_reason is not None
            record.deliver(completion, delta=deltas, stopped=ended and request.stopped(completion))
            if record.finish_reason is not None:
                trust = self.savings.trust(record.model_name, record.counted_as)
                record.settle(self._calibrations.get(record.adapter), trust)

    def _is_off(self, request: EngineRequest, policy: str) -> bool:
        name, counted_as = request.adapter or self._model_name(), policy
        if self._joins(policy):
            counted_as = COMBINED
        return self.savings.is_off(name, counted_as)

    def _joins(self, policy: str) -> bool:
        return "+" in policy and policy != self._defaults.policy

    def _model_name(self) -> str:
        name = self._inner.model_config.served_model_name
        return str(name if isinstance(name, str) else name[0])
