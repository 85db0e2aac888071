"""Load shedding of probes: a limited share of the running sequences, and none while others wait.

A refused probe is skipped, which is not a failure: its request keeps thinking. Requests with a seed
are exempt, because their output must not depend on load.
"""

import math
import time
import uuid
from collections.abc import Callable
from typing import Any

from service.params.limits import ProbeLimits
from service.records.reasons import Refusal

__all__ = ["Load", "load_of", "refusal"]

STALL_SECONDS = 10.0


def refusal(
    *, running: int, probes: int, waiting: int, capacity: int, share: float
) -> Refusal | None:
    """Return why one more probe may not start beside `running` sequences, `probes` of them probes.

    `waiting` requests are queued in the engine, which runs up to `capacity` sequences at once.
    Probes are limited to `share` (0 to 1) of the sequences, but one may always run.
    """
    if waiting > 0 or running >= capacity:
        return Refusal.QUEUE
    if probes >= max(1, math.floor(share * (running + 1))):
        return Refusal.LOAD
    return None


class Load:
    """The sequences and probes in the engine. Not thread-safe: use one event loop."""

    def __init__(
        self,
        *,
        capacity: int,
        share: float,
        clock: Callable[[], float] = time.monotonic,
        on_busy: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.running = 0
        """Sequences in the engine, probes included."""
        self.probes = 0
        self.own_suffix = f"-own-{uuid.uuid4().hex[:8]}"
        """End of the ids of requests that no user made; a client cannot guess it."""
        self._capacity = capacity
        self._share = share
        self._waiting: dict[int, int] = {}  # queued requests by engine
        self._clock = clock
        self._on_busy = on_busy  # called with the seconds that an engine was busy
        self._reports_steps = False
        self._last_step = clock()  # or when the engine stopped being idle

    @property
    def stalled(self) -> bool:
        """True if sequences have been running for `STALL_SECONDS` without a step of any engine.
        Always False if engines do not report their steps (``--disable-log-stats``)."""
        idle = self._clock() - self._last_step
        return self._reports_steps and self.running > 0 and idle >= STALL_SECONDS

    @property
    def waiting(self) -> int:
        """Requests queued in the engines, as of their last step."""
        return sum(self._waiting.values())

    @property
    def saturated(self) -> bool:
        """True if one more sequence would have to wait."""
        return self.waiting > 0 or self.running >= self._capacity

    def refusal(self) -> Refusal | None:
        """Return why a probe may not start now, or None."""
        return refusal(
            running=self.running,
            probes=self.probes,
            waiting=self.waiting,
            capacity=self._capacity,
            share=self._share,
        )

    def enter(self, sequences: int, *, probe: bool = False) -> Callable[[], None]:
        """Count `sequences` as running; return a function that uncounts them, to be called once."""
        probes = sequences if probe else 0
        self._add(sequences, probes)
        return lambda: self._add(-sequences, -probes)

    def _add(self, sequences: int, probes: int) -> None:
        if not self.running:
            self._last_step = self._clock()
        self.running += sequences
        self.probes += probes

    # The interface of vLLM's statistics loggers: only its schedulers know how many requests wait
    # for a place in the batch or for cache.

    def watch(self, manager: Any) -> None:
        """Register with vLLM's statistics loggers; None means ``--disable-log-stats``."""
        if manager is not None:
            manager.stat_loggers.insert(0, self)  # first, as `record` changes what others count
            self._reports_steps = True

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Record a step of an engine; remove what no user asked for from its finished requests,
        so that vLLM's metrics per request do not count it."""
        del mm_cache_stats
        now = self._clock()
        if self.running:
            self._on_busy(now - self._last_step)
        self._last_step = now
        if scheduler_stats is not None:
            self._waiting[engine_idx] = scheduler_stats.num_waiting_reqs
        if iteration_stats is not None:
            ended = iteration_stats.finished_requests
            ended[:] = [each for each in ended if not self._is_own(each.request_id)]

    def _is_own(self, request_id: str | None) -> bool:
        return request_id is not None and request_id.endswith(self.own_suffix)

    def log(self) -> None:
        """No-op."""

    def log_engine_initialized(self) -> None:
        """No-op."""

    def record_sleep_state(self, is_awake: int = 0, level: int = 0) -> None:
        """No-op."""
        del is_awake, level


def load_of(engine: Any, limits: ProbeLimits, on_busy: Callable[[float], None]) -> Load:
    """Return the load of a vLLM engine client. `on_busy` gets the seconds that an engine ran."""
    config = engine.vllm_config
    engines = config.parallel_config.data_parallel_size
    capacity = config.scheduler_config.max_num_seqs * engines
    load = Load(capacity=capacity, share=limits.probe_load, on_busy=on_busy)
    load.watch(getattr(engine, "logger_manager", None))
    return load
