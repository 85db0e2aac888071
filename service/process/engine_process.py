"""The start of vLLM's engine, which is our own on CPUs.

There vLLM 0.31 starts three processes one after the other, and each imports torch and vLLM: the
server, the engine's scheduler and its worker. ``CpuPlatform.check_and_update_config`` sets the
start method to ``spawn``, whatever ``VLLM_WORKER_MULTIPROC_METHOD`` says, and the executor to
``mp``. With a single worker neither is needed: here the engine is forked from the server, which
has imported all of it, and computes in the process of its scheduler (``UniProcExecutor``). The
scheduler then does not poll for its worker either, which costs a core under vLLM's own choice.

vLLM's reason for a worker process is that OpenMP reads its settings when it is loaded. What
matters of them the forked engine sets before its first thread starts: how many threads, and on
which cores (`_settle_threads`). It does not bind each thread to one core. Whoever wants that, on
machines of many cores, passes ``--distributed-executor-backend mp``.
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
    """Have the only worker of a CPU compute in its scheduler's process, unless asked otherwise."""
    ranks = (args.tensor_parallel_size, args.pipeline_parallel_size, args.data_parallel_size)
    if args.distributed_executor_backend is None and set(ranks) == {1}:
        args.distributed_executor_backend = UniProcExecutor


@contextlib.asynccontextmanager
async def engine_client(
    args: argparse.Namespace, *bound: socket.socket | None
) -> AsyncIterator[AsyncLLM]:
    """vLLM's engine client, with its engine started, as ``build_async_engine_client`` yields it.

    `bound` are sockets that a forked engine must not keep open.
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
        await client.reset_mm_cache()  # the engine's profile run fills it with dummies
        yield client
    finally:
        client.shutdown(timeout=config.shutdown_timeout)


def _can_fork(config: VllmConfig) -> bool:
    """Whether the engine is one process that may have its threads after a fork."""
    in_scheduler = issubclass(Executor.get_class(config), UniProcExecutor)
    return current_platform.is_cpu() and in_scheduler and not config.parallel_config.numa_bind


@contextlib.contextmanager
def forking(config: VllmConfig, bound: Sequence[socket.socket | None] = ()) -> Iterator[None]:
    """Have an engine that is started meanwhile forked, if it is one process on a CPU.

    vLLM has set the start method when it made `config`.
    """
    if not _can_fork(config):
        yield
        return
    import vllm.v1.worker.cpu_worker  # noqa: F401, PLC0415 - for CPUs alone

    threads = Threads.of(config)

    def begin() -> None:
        _drop_server_state(bound)
        threads.apply()
        # All three are set by the environment, too, which was read when this process imported them.
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
    """Let go of what a forked process has from the server: its port, and its event loop's signals.

    Without the second a signal for the engine would wake the server, as if it had got it.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for each in bound:
        if each is not None:
            each.close()


@dataclass(frozen=True, slots=True)
class Threads:
    """How many threads of an engine compute, and on which cores it runs."""

    count: int | None
    """None: as many as OpenMP takes."""
    cores: frozenset[int]
    """Empty: any."""

    @classmethod
    def of(cls, config: VllmConfig) -> "Threads":
        """vLLM's own choice, by ``VLLM_CPU_OMP_THREADS_BIND``: by default the cores of one memory
        node, of which one is left to others."""
        chosen = OMPProcessManager(config)
        if chosen.skip_setup:
            return cls(None, frozenset())
        cores = chosen.cpu_lists[0]
        return cls(len(cores), frozenset([*cores, *chosen.reserved_cpu_list]))

    def apply(self) -> None:
        """Keep to it in this process, in which no thread computes yet."""
        if self.cores:
            os.sched_setaffinity(0, self.cores)
        if self.count is not None:
            torch.set_num_threads(self.count)
