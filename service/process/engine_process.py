"""The start of vLLM's engine; on CPUs, the engine is forked from the server.

On CPUs, vLLM 0.31 starts three processes one after the other that each import torch and vLLM: the
server, the engine's scheduler and its worker. ``CpuPlatform.check_and_update_config`` sets the
start method to ``spawn``, regardless of ``VLLM_WORKER_MULTIPROC_METHOD``, and the executor to
``mp``. A single worker needs neither: here the engine is forked from the server, which has already
imported everything, and computes in its scheduler's process (``UniProcExecutor``). The scheduler
then does not poll for its worker either, which keeps a core busy under vLLM's defaults.

vLLM uses a worker process because OpenMP reads its settings when it is loaded. The forked engine
sets the number of threads and their cores before its first thread starts (`Threads`). It does not
pin each thread to one core; ``--distributed-executor-backend mp`` does, for machines with many
cores.
"""

import argparse
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch._inductor.config as inductor
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.executor.abstract import Executor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from service.process.die_with_parent import at_fork

__all__ = ["choose_executor", "engine_client", "forking"]

START_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"


def choose_executor(args: argparse.Namespace) -> None:
    """Select `UniProcExecutor` for a single worker, unless the arguments name another executor."""
    ranks = (args.tensor_parallel_size, args.pipeline_parallel_size, args.data_parallel_size)
    if args.distributed_executor_backend is None and set(ranks) == {1}:
        args.distributed_executor_backend = UniProcExecutor


@contextlib.asynccontextmanager
async def engine_client(
    args: argparse.Namespace, *bound: socket.socket | None
) -> AsyncIterator[AsyncLLM]:
    """Start the engine and yield its client, like vLLM's ``build_async_engine_client``.

    `bound` are the server's sockets, which a forked engine must close.
    """
    engine_args = AsyncEngineArgs.from_cli_args(args)
    context = UsageContext.OPENAI_API_SERVER
    config = engine_args.create_engine_config(context)
    with forking(config, bound):
        client = AsyncLLM.from_vllm_config(
            config,
            usage_context=context,
            enable_log_requests=engine_args.enable_log_requests,
            aggregate_engine_logging=engine_args.aggregate_engine_logging,
            disable_log_stats=engine_args.disable_log_stats,
        )
    try:
        await client.reset_mm_cache()  # the profile run fills it with dummy data
        yield client
    finally:
        client.shutdown(timeout=config.shutdown_timeout)


def _can_fork(config: VllmConfig) -> bool:
    """Return whether the engine is a single CPU process that starts its threads after the fork."""
    in_scheduler = issubclass(Executor.get_class(config), UniProcExecutor)
    return current_platform.is_cpu() and in_scheduler and not config.parallel_config.numa_bind


@contextlib.contextmanager
def forking(config: VllmConfig, bound: Sequence[socket.socket | None] = ()) -> Iterator[None]:
    """Fork the engine that is started within this context, if it is a single CPU process.

    Creating `config` set vLLM's start method, which this context overrides.
    """
    if not _can_fork(config):
        yield
        return
    import vllm.v1.worker.cpu_worker  # noqa: F401, PLC0415 - CPUs only

    threads = Threads.of(config)

    def begin() -> None:
        _drop_server_state(bound)
        threads.apply()
        # Environment variables for these three were already read when this process imported them.
        inductor.compile_threads = 1
        inductor.cpp.dynamic_threads = True
        if os.environ.get("TORCHDYNAMO_DISABLE") == "1":
            torch.compiler.set_stance("force_eager")

    spawns = os.environ[START_METHOD]
    os.environ[START_METHOD] = "fork"
    try:
        with at_fork(begin):
            yield
    finally:
        os.environ[START_METHOD] = spawns


def _drop_server_state(bound: Sequence[socket.socket | None]) -> None:
    """Drop what a forked process inherits from the server: its sockets and its signal handlers.

    Otherwise a signal to the engine would wake the event loop of the server.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for each in bound:
        if each is not None:
            each.close()


@dataclass(frozen=True, slots=True)
class Threads:
    """Number of compute threads of an engine, and its cores."""

    count: int | None
    """None: OpenMP's default."""
    cores: frozenset[int]
    """Empty: all cores."""

    @classmethod
    def of(cls, config: VllmConfig) -> "Threads":
        """Return vLLM's own choice by ``VLLM_CPU_OMP_THREADS_BIND``: by default all cores of one
        NUMA node but one."""
        chosen = OMPProcessManager(config)
        if chosen.skip_setup:
            return cls(None, frozenset())
        cores = chosen.cpu_lists[0]
        return cls(len(cores), frozenset([*cores, *chosen.reserved_cpu_list]))

    def apply(self) -> None:
        """Apply to this process, which must not have started compute threads yet."""
        if self.cores:
            os.sched_setaffinity(0, self.cores)
        if self.count is not None:
            torch.set_num_threads(self.count)
