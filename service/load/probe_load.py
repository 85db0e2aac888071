"""Probes yield under load: they take a share of the running sequences, and none while others wait.

A probe that is refused is not asked, which is no failure: its request thinks on. Requests with a
seed are exempt, for what they get must not depend on others.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from service.params.limits import ProbeLimits
from service.records.reasons import Refusal

__all__ = ["Load", "load_of", "refusal"]

STALL_SECONDS = 10.0


def refusal(
    *, running: int, probes: int, waiting: int, capacity: int, share: float
) -> Refusal | None:
    """Why one more probe may not join `running` sequences of which `probes` are probes.

    `waiting` requests queue in the engine, which runs at most `capacity` sequences at once. Probes
    are at most `share` (0 to 1) of the sequences, but one may always run.
    """
    if waiting > 0 or running >= capacity:
        return Refusal.QUEUE
    if probes >= max(1, math.floor(share * (running + 1))):
        return Refusal.LOAD
    return None


class Load:
    """What this server runs in the engine: sequences and probes, counted as they come and go.

    One event loop's; no locks.
    """

    def __init__(
        self,
        *,
        capacity: int,
        share: float,
        clock: Callable[[], float] = time.monotonic,
        busy: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.running = 0
        """Sequences handed to the engine, probes among them, that have not ended."""
        self.probes = 0
        self._capacity = capacity
        self._share = share
        self._waiting: dict[int, int] = {}  # by engine
        self._clock = clock
        self._busy = busy  # is told how many seconds an engine had something to run
        self._heard = False  # whether the engine tells of its steps
        self._alive = clock()  # at the last step, or when something began to run

    @property
    def stalled(self) -> bool:
        """Whether sequences have been running for `STALL_SECONDS` without a step of any engine.
        Never, if the engine does not tell of its steps (``--disable-log-stats``)."""
        silence = self._clock() - self._alive
        return self._heard and self.running > 0 and silence >= STALL_SECONDS

    @property
    def waiting(self) -> int:
        """Requests that queue in the engines, as of their last step."""
        return sum(self._waiting.values())

    @property
    def saturated(self) -> bool:
        """Whether one more sequence would make others wait."""
        return self.waiting > 0 or self.running >= self._capacity

    def refusal(self) -> Refusal | None:
        """Why a probe may not start now."""
        return refusal(
            running=self.running,
            probes=self.probes,
            waiting=self.waiting,
            capacity=self._capacity,
            share=self._share,
        )

    def enter(self, sequences: int, *, probe: bool = False) -> Callable[[], None]:
        """Count sequences in; the function returned counts them out, and is called once."""
        probes = sequences if probe else 0
        self._add(sequences, probes)
        return lambda: self._add(-sequences, -probes)

    def _add(self, sequences: int, probes: int) -> None:
        if not self.running:
            self._alive = self._clock()
        self.running += sequences
        self.probes += probes

    # One of vLLM's statistics loggers, for what only its schedulers know: who waits, be it for a
    # place in the batch or for cache.

    def watch(self, manager: Any) -> None:
        """Join vLLM's statistics loggers; None (``--disable-log-stats``) leaves our own count."""
        if manager is not None:
            manager.stat_loggers.append(self)
            self._heard = True

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Called after every step of an engine."""
        del iteration_stats, mm_cache_stats
        now = self._clock()
        if self.running:
            self._busy(now - self._alive)
        self._alive = now
        if scheduler_stats is not None:
            self._waiting[engine_idx] = scheduler_stats.num_waiting_reqs

    def log(self) -> None:
        """Nothing to say."""

    def log_engine_initialized(self) -> None:
        """Nothing to say."""

    def record_sleep_state(self, is_awake: int = 0, level: int = 0) -> None:
        """Nothing to note."""
        del is_awake, level


def load_of(engine: Any, limits: ProbeLimits, busy: Callable[[float], None]) -> Load:
    """The load of a vLLM engine client; `busy` is told seconds as they pass with work."""
    config = engine.vllm_config
    engines = config.parallel_config.data_parallel_size
    capacity = config.scheduler_config.max_num_seqs * engines
    load = Load(capacity=capacity, share=limits.probe_load, busy=busy)
    load.watch(getattr(engine, "logger_manager", None))
    return load
