"""Who may generate: decided once for a request, before its response starts.

vLLM asks twice, and its engine once more for every probe and answer, so under load a client could
read half of its response and then a refusal. Here a request that is let in keeps its seats, one
for each sequence, until it ends: nothing that it still needs is refused, neither when others take
the last seats nor in a drain.
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
class _Expected:
    """Seats kept for a request that has not asked yet."""

    n: int


_expected: contextvars.ContextVar[_Expected | None] = contextvars.ContextVar(
    "expected", default=None
)
"""Of the HTTP request being served."""


class Admission:
    """The seats of a server; as many as its limit allows, without one as many as are asked for."""

    def __init__(self, inner: EngineClient) -> None:
        scheduler = inner.vllm_config.scheduler_config
        self._limit: int | None = scheduler.max_num_queued_reqs
        self._token_limit: int | None = scheduler.max_num_queued_tokens
        self._inner = inner
        # The engine would apply them to probes and answers as well.
        scheduler.max_num_queued_reqs = scheduler.max_num_queued_tokens = None
        self.taken = 0
        """Seats of requests that were let in and have not ended."""
        self.coming = 0
        """Seats kept for requests that are still being read."""
        self.closed = False
        """Whether all that is new is refused."""

    @contextlib.contextmanager
    def expect(self, n: int) -> Iterator[bool]:
        """Keep `n` seats for a request until it asks for any, or has ended without; whether seats
        are limited.

        To make something of a request takes milliseconds of the event loop. Of a crowd that comes
        at once those that will find no seat are refused first, and wait for none of that.
        """
        keeps = self._limit is not None and n <= self._limit
        expected = _Expected(n if keeps else 0)
        self.coming += expected.n
        token = _expected.set(expected)
        try:
            yield self._limit is not None
        finally:
            _expected.reset(token)
            self._arrive(expected)

    def _arrive(self, expected: _Expected | None) -> None:
        """What was kept for a request is free, for it above all."""
        if expected is not None:
            self.coming -= expected.n
            expected.n = 0

    def ask(self, n: int, context: RequestContext | None) -> None:
        """Let in `n` sequences of an HTTP request, or refuse them.

        Without a context, which means outside of one, nothing is kept for them. Raises
        QueueOverflowError or MaxQueuedTokensError (HTTP 503: later, or elsewhere) and
        VLLMValidationError (HTTP 400: never).
        """
        self._arrive(_expected.get())
        asked = n + (context.slots.granted if context else 0)
        if self._limit is not None and asked > self._limit:
            raise VLLMValidationError(
                f"The request asks for {asked} sequences (n for each prompt), and this server "
                f"takes {self._limit} at once: lower n, or raise its --max-num-queued-reqs",
                parameter="n",
            )
        if refusal := self.refusal(n):
            raise refusal
        if context is not None:
            self._grant(n, context)

    def refusal(self, n: int) -> GracefulHTTPError | None:
        """What keeps `n` more sequences out for now: all seats are taken, or the server drains.

        None also for more than there will ever be seats for, which `ask` refuses for good.
        """
        if self._limit is not None and n > self._limit:
            return None
        due = self.taken + self.coming + n
        if self.closed or (self._limit is not None and due > self._limit):
            return QueueOverflowError()
        if self._token_limit is not None and (
            self._inner.get_num_queued_tokens() >= self._token_limit
        ):
            return MaxQueuedTokensError()
        return None

    def claim(self, n: int, context: RequestContext) -> None:
        """Seats for one prompt of a request; asks for those that it was not granted.

        A request of which a sequence has started is not asked about any more: its response may
        be on its way, and what it generates now (a beam, a further turn) is part of it.
        """
        seats = context.slots
        seats.claimed += n
        missing = seats.claimed - seats.granted
        if missing > 0 and not seats.started:
            self.ask(missing, context)

    def start(self, n: int, context: RequestContext) -> None:
        """`n` sequences begin; `end` gives their seats back."""
        seats = context.slots
        seats.started += n
        self._grant(max(seats.started - seats.granted, 0), context)

    def end(self, n: int) -> None:
        """`n` sequences have ended, and nothing of them runs any more."""
        self.taken -= n

    def leave(self, context: RequestContext) -> None:
        """The HTTP request has ended: give back what no sequence of it began to use."""
        seats = context.slots
        self.taken -= seats.granted - seats.started
        seats.granted = seats.started

    def _grant(self, n: int, context: RequestContext) -> None:
        self.taken += n
        context.slots.granted += n
        context.on_end = self.leave
