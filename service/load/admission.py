"""Admission control: decided once per request, before its response starts.

vLLM checks admission twice per request, and its engine again for every probe and answer, so under
load a client could receive half of a response and then an error. Here an admitted request holds one
slot per sequence until it ends. Nothing that it still needs is refused, neither when other requests
take the last slots nor during a drain.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass

from vllm.engine.protocol import EngineClient
from vllm.exceptions import (
    GracefulHTTPError,
    MaxQueuedTokensError,
    QueueOverflowError,
    VLLMValidationError,
)

from service.records.sequence import RequestContext

__all__ = ["Admission"]


@dataclass(slots=True)
class _Reservation:
    """Slots held for a request that is not admitted yet."""

    n: int


_reservation: contextvars.ContextVar[_Reservation | None] = contextvars.ContextVar(
    "reservation", default=None
)
"""The reservation of the current HTTP request."""


class Admission:
    """The slots of a server, one per sequence; unlimited without ``--max-num-queued-reqs``."""

    def __init__(self, inner: EngineClient) -> None:
        scheduler = inner.vllm_config.scheduler_config
        self._limit: int | None = scheduler.max_num_queued_reqs
        self._token_limit: int | None = scheduler.max_num_queued_tokens
        self._inner = inner
        # Otherwise the engine would apply the limits to probes and answers as well.
        scheduler.max_num_queued_reqs = scheduler.max_num_queued_tokens = None
        self.in_use = 0
        """Slots of admitted requests that have not ended."""
        self.reserved = 0
        """Slots reserved for requests whose body is being read."""
        self.closed = False
        """True if all new requests are refused."""

    @contextlib.contextmanager
    def reserve(self, n: int) -> Iterator[bool]:
        """Reserve `n` slots for a request until it is admitted or ends; yield whether slots are
        limited.

        Parsing a request takes milliseconds of the event loop. In a burst of requests, those
        without a slot are refused before any other is parsed.
        """
        fits = self._limit is not None and n <= self._limit
        reservation = _Reservation(n if fits else 0)
        self.reserved += reservation.n
        token = _reservation.set(reservation)
        try:
            yield self._limit is not None
        finally:
            _reservation.reset(token)
            self._release(reservation)

    def _release(self, reservation: _Reservation | None) -> None:
        if reservation is not None:
            self.reserved -= reservation.n
            reservation.n = 0

    def admit(self, n: int, context: RequestContext | None) -> None:
        """Admit `n` sequences of an HTTP request, or refuse them.

        Without a context, that is outside of an HTTP request, no slots are taken. Raises
        QueueOverflowError or MaxQueuedTokensError (HTTP 503, may be retried) and
        VLLMValidationError (HTTP 400, more sequences than the server has slots).
        """
        self._release(_reservation.get())
        asked = n + (context.slots.granted if context else 0)
        if self._limit is not None and asked > self._limit:
            raise VLLMValidationError(
                f"The request asks for {asked} sequences (n for each prompt), and this server "
                f"runs {self._limit} at once: lower n, or raise its --max-num-queued-reqs",
                parameter="n",
            )
        if refusal := self.refusal(n):
            raise refusal
        if context is not None:
            self._grant(n, context)

    def refusal(self, n: int) -> GracefulHTTPError | None:
        """Return why `n` more sequences cannot run now: the server is full or draining.

        Returns None for more sequences than the server has slots, which `admit` refuses as invalid.
        """
        if self._limit is not None and n > self._limit:
            return None
        needed = self.in_use + self.reserved + n
        if self.closed or (self._limit is not None and needed > self._limit):
            return QueueOverflowError()
        if self._token_limit is not None and (
            self._inner.get_num_queued_tokens() >= self._token_limit
        ):
            return MaxQueuedTokensError()
        return None

    def claim(self, n: int, context: RequestContext) -> None:
        """Claim `n` slots for one prompt of a request; admit those that it was not granted yet.

        Once a sequence of the request has started, nothing is refused any more: its response may
        have started, and what it generates now (a beam, another turn) belongs to it.
        """
        seats = context.slots
        seats.claimed += n
        missing = seats.claimed - seats.granted
        if missing > 0 and not seats.started:
            self.admit(missing, context)

    def start(self, n: int, context: RequestContext) -> None:
        """Start `n` sequences, whose slots `end` releases."""
        seats = context.slots
        seats.started += n
        self._grant(max(seats.started - seats.granted, 0), context)

    def end(self, n: int) -> None:
        """Release the slots of `n` sequences that no longer run."""
        self.in_use -= n

    def release_unused(self, context: RequestContext) -> None:
        """Release the slots that no sequence of an ended HTTP request has used."""
        seats = context.slots
        self.in_use -= seats.granted - seats.started
        seats.granted = seats.started

    def _grant(self, n: int, context: RequestContext) -> None:
        self.in_use += n
        context.slots.granted += n
        context.on_end = self.release_unused
