"""vLLM's own server with `EarlyExitEngine` in place of its engine client.

The only module that uses vLLM's launch internals, as `service.process.upstream` finds them.
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
from vllm.entrypoints.launchers.api_server.entry import build_and_serve
from vllm.entrypoints.launchers.launcher import NoSignalServer, setup_server
from vllm.exceptions import VLLMValidationError
from vllm.logger import configure_logging_from_args
from vllm.platforms import current_platform
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.metrics.prometheus import get_prometheus_registry

from service.access.cache_isolation import IsolatedEngine
from service.access.middleware import Rules
from service.access.protocol import HttpProtocol
from service.access.scrape import metrics_app
from service.config.server import Defaults
from service.engine.client import EarlyExitEngine
from service.engine.observer import RequestObserver
from service.process.calibrated import calibrated_model
from service.process.die_with_parent import end_engine_with_server
from service.process.engine_process import choose_executor, engine_client
from service.process.sighup import reopen_on_sighup
from service.process.upstream import located
from service.records.log_writer import RequestLog
from service.records.metrics import Metrics
from service.records.tracing import tracing_from_config
from service.savings.facts import engine_facts
from service.savings.measurement import SavingsMeasurement
from stepgrpo_core import Baseline

__all__ = ["argument_parser", "serve"]

cli_env_setup = located("vllm.entrypoints.serve.utils.api_utils.cli_env_setup")
load_chat_template = located("vllm.entrypoints.chat_utils.load_chat_template")
make_arg_parser = located("vllm.entrypoints.launchers.cli_args.make_arg_parser")
validate_args = located("vllm.entrypoints.launchers.cli_args.validate_parsed_serve_args")

_ANTHROPIC = "vllm.entrypoints.anthropic.api_router"

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SEND_BUFFER = 128 * 1024  # bytes, doubled by Linux; its default buffers 4 MB for a stalled client
LAST_EVENT_SECONDS = 1.0  # for clients to read the last events of their streams

_log = logging.getLogger("vllm.stepgrpo")


def argument_parser(usage: str, description: str) -> Any:
    """Return vLLM's parser with all its flags; `service.cli` adds the flags of this package."""
    cli_env_setup()
    parser = FlexibleArgumentParser(prog="stepgrpo-serve", usage=usage, description=description)
    return make_arg_parser(parser)


def bind(args: argparse.Namespace) -> tuple[str, socket.socket]:
    """Check the arguments and bind the port before anything slow starts. Raises OSError."""
    configure_logging_from_args(args)
    if current_platform.is_cpu():
        _set_cpu_defaults(args)
    validate_args(args)
    try:
        address, bound = setup_server(args, reuse_port=False)
    except OSError as error:
        raise OSError(f"cannot bind port {args.port} ({error.strerror}); pass --port") from error
    return address, bound


def _set_cpu_defaults(args: argparse.Namespace) -> None:
    """Set defaults that vLLM 0.31 and early exit need on CPUs."""
    if args.enable_chunked_prefill is None:
        # A seeded request whose prompt is prefilled in chunks crashes the engine ("CPU Generator
        # does not use offset", GPUModelRunner._bookkeeping_sync).
        args.enable_chunked_prefill = False
    choose_executor(args)
    if args.block_size is None:
        # vLLM's default of 128 makes a probe prefill up to 127 tokens again, since only whole
        # blocks are shared. Its CPU attention does not support fewer than 32.
        args.block_size = 32
    if args.enable_lora:
        # vLLM's LoRA kernels apply the last slot's adapter to requests without one (vllm#48421);
        # an extra slot that stays empty adds nothing.
        args.max_loras = max(args.max_loras, len(args.lora_modules or ())) + 1
    if shutil.which("g++") is None:
        args.enforce_eager = True
    if args.enforce_eager:
        # The engine still compiles some functions (`batched_count_greater_than`, for log-probs),
        # and without a C++ compiler the first request that needs one crashes it. The engine reads
        # this variable when it starts.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


def _is_server_error(record: logging.LogRecord) -> bool:
    """Filter out invalid requests: their tracebacks would quote the request in the log."""
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
    """Load the model and serve until a signal arrives. Raises SystemExit if the engine died.

    `listening` is the result of `bind`; `scraped` is the socket of the metrics port, if any.
    """
    address, bound = listening
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    args.access = rules  # the middleware reads them there
    logging.getLogger(_ANTHROPIC).addFilter(_is_server_error)
    end_engine_with_server()
    reopen_on_sighup(rules.keys, log, savings)
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
            calibrated=calibrated_model(
                defaults, _models(args), inner.renderer.tokenizer, template
            ),
            journal=RequestObserver(
                log, tracing_from_config(inner.vllm_config), with_text=defaults.log_text
            ),
        )
        await engine.warm_up()
        background = [_watch(engine), rules.keys.watch(), _serve_metrics(scraped)]
        tasks = [asyncio.create_task(each) for each in background]
        shutdown_task = await build_and_serve(engine, address, bound, args, http=HttpProtocol)
        for task in tasks:
            task.cancel()
    for number in SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)  # the next signal ends the process
    try:
        # The HTTP server waits until its clients have read everything, and some never do.
        left = max(engine.drain.deadline - time.monotonic(), LAST_EVENT_SECONDS)
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
        sys.exit("stepgrpo-serve: the engine's process ended; see its last messages above")


def _models(args: argparse.Namespace) -> dict[str | None, str]:
    """Return the served models by adapter, with None for the model itself."""
    return {None: args.model} | {each.name: each.path for each in args.lora_modules or ()}


async def _serve_metrics(bound: socket.socket | None) -> None:
    """Serve metrics on their own port, if there is one."""
    if bound is not None:
        app = metrics_app(get_prometheus_registry())
        config = Config(app, http=HttpProtocol, lifespan="off", access_log=False, log_config=None)
        await NoSignalServer(config).serve(sockets=[bound])


async def _watch(engine: EarlyExitEngine) -> None:
    """Shut down when the engine dies, and end a drain at the second signal.

    vLLM's server also stops when its engine dies, but takes up to five seconds and exits with
    status 0, so a supervisor does not restart it. It ignores signals during a drain.
    """
    loop, handled = asyncio.get_running_loop(), False
    while not engine.lost:  # vLLM has no event for this
        if engine.readiness == "draining" and not handled:
            handled = True
            for number in SIGNALS:
                loop.add_signal_handler(number, engine.drain.expire)
        await asyncio.sleep(0.1)
    _log.critical("The engine's process ended: its requests fail and the server stops.")
    await asyncio.sleep(LAST_EVENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
