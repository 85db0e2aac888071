"""vLLM's own server with `EarlyExitEngine` in place of its engine client.

The only file that touches vLLM's launch internals. `UPSTREAM` names every symbol of vLLM that
this package relies on, and why; a test imports each, so that an upgrade fails there first.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import REGISTRY
from uvicorn import Config
from vllm.entrypoints.chat_utils import load_chat_template
from vllm.entrypoints.launchers.api_server.entry import build_and_serve
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import NoSignalServer, setup_server
from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
from vllm.exceptions import VLLMValidationError
from vllm.logger import configure_logging_from_args
from vllm.platforms import current_platform
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.metrics.prometheus import get_prometheus_registry

from service.access.middleware import Rules
from service.access.protocol import HttpProtocol
from service.access.scrape import metrics_app
from service.access.tenants import IsolatedEngine
from service.config.server import Defaults
from service.engine.client import EarlyExitEngine
from service.engine.observer import RequestObserver
from service.process.engine_process import engine_client, settle_executor
from service.process.hangup import reopen_on_hangup
from service.process.lifeline import tie_engine_processes
from service.records.log_writer import RequestLog
from service.records.metrics import Metrics
from service.records.tracing import tracing_from_config
from service.savings.facts import engine_facts
from service.savings.measurement import SavingsMeasurement
from stepgrpo_core import Baseline

__all__ = ["UPSTREAM", "argument_parser", "serve"]

_ENTRY = "vllm.entrypoints.launchers.api_server.entry"
_OUTPUTS = "vllm.outputs"
_ANTHROPIC = "vllm.entrypoints.anthropic.api_router"

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SEND_BUFFER = 128 * 1024  # bytes, which Linux doubles; by itself it lets a stalled reader have 4 MB
LAST_WORDS_SECONDS = 1.0  # for clients to read how their streams ended

_log = logging.getLogger("vllm.stepgrpo")

UPSTREAM: dict[str, str] = {
    "vllm.engine.arg_utils.AsyncEngineArgs.create_engine_config": "chooses how the engine starts",
    "vllm.v1.engine.async_llm.AsyncLLM.from_vllm_config": "starts the engine; we wrap it",
    "vllm.v1.engine.async_llm.AsyncLLM.reset_mm_cache": "after the start, as vLLM's server does",
    "vllm.usage.usage_lib.UsageContext.OPENAI_API_SERVER": "what vLLM's server says it is",
    "vllm.config.VllmConfig": "whether the engine's process can be forked",
    "vllm.v1.executor.abstract.Executor.get_class": "the same",
    "vllm.v1.executor.uniproc_executor.UniProcExecutor": "on CPUs, instead of a worker process",
    "vllm.utils.ompmultiprocessing.OMPProcessManager": "the threads and cores of that worker",
    f"{_ENTRY}.build_and_serve": "builds the application around an engine client",
    "vllm.entrypoints.chat_utils.load_chat_template": "whether --chat-template can switch thinking",
    f"{_ANTHROPIC}.logger": "logs every request that it refuses as an error",
    "vllm.entrypoints.launchers.launcher.setup_server": "binds the port before the model loads",
    "vllm.entrypoints.launchers.launcher.NoSignalServer": "metrics on a port of their own",
    "vllm.v1.metrics.prometheus.get_prometheus_registry": "the same",
    "vllm.entrypoints.launchers.cli_args.make_arg_parser": "every `vllm serve` flag",
    "vllm.entrypoints.launchers.cli_args.validate_parsed_serve_args": "checks before loading",
    "vllm.entrypoints.serve.utils.api_utils.cli_env_setup": "spawned engine processes",
    "vllm.platforms.current_platform": "CPUs need another default",
    "vllm.logger.configure_logging_from_args": "log flags",
    "vllm.utils.argparse_utils.FlexibleArgumentParser": "flags from YAML and JSON",
    "vllm.engine.protocol.EngineClient.generate": "what the wrapper replaces",
    "vllm.engine.protocol.EngineClient.encode": "its prompts get their tenant's salt, too",
    "vllm.engine.protocol.EngineClient.check_admission": "the wrapper owns admission",
    "vllm.engine.protocol.EngineClient.shutdown": "the wrapper drains first",
    "vllm.engine.protocol.EngineClient.dead_error": "a new one for each request",
    "vllm.engine.protocol.EngineClient.errored": "the engine's process has ended",
    "vllm.engine.protocol.EngineClient.check_health": "liveness, also at the end of a drain",
    "vllm.v1.engine.core.EngineCoreProc.run_engine_core": "replaced: ends with the server",
    "vllm.v1.executor.multiproc_executor.WorkerProc.worker_main": "replaced: likewise",
    "vllm.v1.engine.coordinator.DPCoordinatorProc.run_coordinator": "replaced: likewise",
    "vllm.entrypoints.openai.models.serving.OpenAIServingModels.show_available_models": "one model",
    "vllm.benchmarks.serve.add_cli_args": "stepgrpo-serve bench",
    "vllm.benchmarks.serve.main": "the same",
    "vllm.engine.protocol.EngineClient.abort": "ends main streams and probes",
    "vllm.config.model.ModelConfig.get_diff_sampling_param": "one of what decides lengths",
    "vllm.exceptions.VLLMValidationError": "becomes HTTP 400 with the parameter's name",
    "vllm.exceptions.QueueOverflowError": "becomes HTTP 503",
    "vllm.exceptions.GracefulHTTPError": "the same, in our words",
    "vllm.config.scheduler.SchedulerConfig.policy": "whether priorities count",
    "vllm.v1.metrics.loggers.StatLoggerManager.record": "tells who waits; probes yield to them",
    "vllm.v1.metrics.stats.SchedulerStats.num_waiting_reqs": "the same",
    "vllm.exceptions.MaxQueuedTokensError": "becomes HTTP 503",
    "vllm.v1.engine.exceptions.EngineDeadError": "what every request gets when the engine dies",
    "vllm.inputs.TokensPrompt": "the prompt of the token that is generated at start",
    f"{_OUTPUTS}.RequestOutput.add": "merges deltas for responses that do not stream",
    "vllm.logprobs.Logprob": "the value for none, at injected tokens",
    "vllm.v1.metrics.stats.RequestStateStats.scheduled_ts": "when a request left the queue",
    "vllm.v1.metrics.stats.RequestStateStats.first_token_latency": "of responses that come whole",
    "vllm.config.observability.ObservabilityConfig.otlp_traces_endpoint": "whether to trace",
    "vllm.tracing.init_tracer": "sets up OpenTelemetry's tracer, which ours is",
    f"{_OUTPUTS}.CompletionOutput": "carries injected tokens",
    "vllm.reasoning.ReasoningParserManager.get_reasoning_parser": "what reasoning is, its marks",
    "vllm.reasoning.ReasoningParser.extract_reasoning_streaming": "the same",
    "vllm.reasoning.ReasoningParser.is_reasoning_end": "the same, after a prompt, in streams",
    "vllm.sampling_params.SamplingParams._all_stop_token_ids": "less those of the answer alone",
    "vllm.sampling_params.SamplingParams.clone": "parameters of answers",
    "vllm.sampling_params.RequestOutputKind.DELTA": "streams come as deltas",
    "vllm.sampling_params.RequestOutputKind.FINAL_ONLY": "responses that do not stream",
    "vllm.sampling_params.RequestOutputKind.CUMULATIVE": "passes through",
}


def argument_parser(usage: str, description: str) -> Any:
    """vLLM's parser with all its flags; ours are added by the command line."""
    cli_env_setup()
    parser = FlexibleArgumentParser(prog="stepgrpo-serve", usage=usage, description=description)
    return make_arg_parser(parser)


def bind(args: argparse.Namespace) -> tuple[str, socket.socket]:
    """Check the arguments and take the port, before anything slow; raises OSError."""
    configure_logging_from_args(args)
    if current_platform.is_cpu():
        _settle_cpu(args)
    validate_parsed_serve_args(args)
    try:
        address, bound = setup_server(args, reuse_port=False)
    except OSError as error:
        raise OSError(
            f"port {args.port} cannot be taken ({error.strerror}); pass --port"
        ) from error
    return address, bound


def _settle_cpu(args: argparse.Namespace) -> None:
    """What vLLM 0.31 needs on CPUs, and what early exit does."""
    if args.enable_chunked_prefill is None:
        # With a seed, a prompt that is prefilled in chunks ends the engine ("CPU Generator does
        # not use offset", GPUModelRunner._bookkeeping_sync).
        args.enable_chunked_prefill = False
    settle_executor(args)
    if args.block_size is None:
        # vLLM's 128 there: a trial would prefill up to 127 tokens that its request has computed,
        # for only whole blocks are shared. Fewer than 32 its CPU attention refuses.
        args.block_size = 32
    if args.enable_lora:
        # Its LoRA operations take a request without adapter for one with the last slot's
        # (vllm#48421): a slot that stays empty adds nothing.
        args.max_loras = max(args.max_loras, len(args.lora_modules or ())) + 1
    if shutil.which("g++") is None:
        args.enforce_eager = True
    if args.enforce_eager:
        # The engine compiles some functions all the same (`batched_count_greater_than`, for
        # log-probs): without a C++ compiler the first request that wants one ends it. The engine
        # reads this when it starts.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


def _is_no_refusal(record: logging.LogRecord) -> bool:
    """A request refused for what it says is its client's fault; with a traceback it would bring
    that into the log as well."""
    return not (record.exc_info and isinstance(record.exc_info[1], VLLMValidationError))


async def serve(
    args: argparse.Namespace,
    listening: tuple[str, socket.socket],
    scraped: socket.socket | None,
    *,
    rules: Rules,
    defaults: Defaults,
    calibrations: Mapping[str | None, Baseline],
    savings: SavingsMeasurement | None,
    log: RequestLog | None,
) -> None:
    """Load the model and serve until a signal ends it; SystemExit if the engine ended first.
    `listening` is what `bind` returned; `scraped`, of its own port for metrics if it has one."""
    address, bound = listening
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    args.access = rules  # where the middleware finds them
    logging.getLogger(_ANTHROPIC).addFilter(_is_no_refusal)
    tie_engine_processes()
    reopen_on_hangup(rules.keys, log, savings)
    if savings is not None:
        REGISTRY.register(savings)
    metrics = Metrics()
    if log is not None:
        log.start(metrics.log_dropped)
    async with engine_client(args, bound, scraped) as inner:
        template = load_chat_template(args.chat_template)
        if savings is not None:
            savings.facts |= engine_facts(inner.vllm_config, template)
        engine = EarlyExitEngine(
            IsolatedEngine(inner) if rules.isolates else inner,
            defaults.settings,
            effort=defaults.effort,
            family=defaults.family,
            families=defaults.families,
            demanded="policy" in defaults.resolved.values and defaults.settings.policy != "none",
            chat_template=template,
            calibrations=calibrations,
            metrics=metrics,
            limits=defaults.limits,
            savings=savings,
            judge=defaults.judge,
            stop_in_thinking=defaults.stop_in_thinking,
            with_tools=defaults.with_tools,
            journal=RequestObserver(
                log, tracing_from_config(inner.vllm_config), with_text=defaults.log_text
            ),
        )
        await engine.prove()
        beside = [_watch(engine), rules.keys.watch(), _serve_metrics(scraped)]
        tasks = [asyncio.create_task(each) for each in beside]
        shutdown_task = await build_and_serve(engine, address, bound, args, http=HttpProtocol)
        for task in tasks:
            task.cancel()
    for number in SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)  # another one ends it as it is
    try:
        # The HTTP server waits for its clients to have read all. Some never do.
        left = max(engine.drain.by - time.monotonic(), LAST_WORDS_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(shutdown_task, left)
    finally:
        bound.close()
        if savings is not None:
            await asyncio.to_thread(savings.close)
        if log is not None:
            log.close()
        await engine.release()
    if engine.lost:
        sys.exit("stepgrpo-serve: the engine's process ended; what it said last is above")


async def _serve_metrics(bound: socket.socket | None) -> None:
    """Answer scrapes on their own port, if they have one."""
    if bound is not None:
        app = metrics_app(get_prometheus_registry())
        config = Config(app, http=HttpProtocol, lifespan="off", access_log=False, log_config=None)
        await NoSignalServer(config).serve(sockets=[bound])


async def _watch(engine: EarlyExitEngine) -> None:
    """Stop as after a signal when the engine has died, and at once after a second signal.

    vLLM's server stops, too, but takes up to five seconds and calls that a success, so whoever
    restarts what fails does not restart it. Signals during a drain it ignores.
    """
    loop, second = asyncio.get_running_loop(), False
    while not engine.lost:  # vLLM offers no event for it
        if engine.readiness == "draining" and not second:
            second = True
            for number in SIGNALS:
                loop.add_signal_handler(number, engine.drain.hurry)
        await asyncio.sleep(0.1)
    _log.critical("The engine's process ended: its requests fail, and the server stops.")
    await asyncio.sleep(LAST_WORDS_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
