"""Timestamps of one sequence, recorded once per event and read after it ended.

Moments are readings of the monotonic clock, so changes of the wall clock do not affect them.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from service.records.reasons import Refusal
from stepgrpo_core import ExitController, ExitReason
from stepgrpo_core.control.policy_slots import PendingDecision

__all__ = [
    "MAX_PROBES",
    "Moment",
    "ProbeTimes",
    "Spans",
    "Start",
    "Timeline",
]

MAX_PROBES = 64  # recorded per sequence; the operator's limit may be higher

Moment = float
"""Seconds, by ``time.monotonic``."""


@dataclass(frozen=True, slots=True)
class Start:
    """Arrival of a request on both clocks."""

    moment: Moment
    wall: int
    """Nanoseconds since 1970 by the wall clock."""

    @classmethod
    def at(cls, moment: Moment) -> "Start":
        """Return the start of a request that arrived at `moment`, shortly before now."""
        return cls(moment, time.time_ns() - round((time.monotonic() - moment) * 1e9))

    def wall_at(self, moment: Moment) -> int:
        """Return `moment` as wall-clock nanoseconds since 1970, extrapolated from the start."""
        return self.wall + round((moment - self.moment) * 1e9)


class Spans(Protocol):
    """Tracing spans of one sequence."""

    @property
    def trace_id(self) -> str | None:
        """Trace id in hexadecimal; None if the trace is not sampled."""

    def probe(self, number: int, moment: Moment) -> Mapping[str, Any]:
        """Start the span of a probe; return options for its ``generate`` call."""

    def answer(self, moment: Moment) -> Mapping[str, Any]:
        """Start the span of the answer after an exit; return options for its ``generate`` call."""


@dataclass(slots=True)
class ProbeTimes:
    """Timestamps of one probe."""

    asked: Moment
    answered: Moment | None = None
    refused: Refusal | None = None
    """Reason why the probe was not sent."""


class Timeline:
    """Timestamps of one sequence."""

    def __init__(
        self,
        request_id: str = "",
        start: Start | None = None,
        *,
        texts: deque[str] | None = None,
        spans: Spans | None = None,
    ) -> None:
        self.request_id = request_id
        """Id of the engine's request."""
        self.submitted = time.monotonic()
        self.start = start or Start.at(self.submitted)
        """The moment at which the request was passed to the engine."""
        self.texts = texts
        """Delivered text; None unless the log includes text."""
        self.awaiting_tokens = True
        """The next tokens are the first, or the first of the answer: call `received` with them."""
        self.thinking = True
        """The thinking has not ended: call `observe` after every controller event."""
        self.first_token: Moment | None = None
        self.thought: Moment | None = None
        """End of the thinking, natural or by an exit."""
        self.cut: Moment | None = None
        self.closed: Moment | None = None
        """Injection of the forced tokens that close the thinking."""
        self.answer: Moment | None = None
        """Arrival of the first token of the answer."""
        self.ended: Moment | None = None
        self.probes: list[ProbeTimes] = []
        """Timestamps by probe number."""
        self.asked: Sequence[PendingDecision] = ()
        """Decisions by probe number; filled in when the sequence has ended."""
        self.stats: Any = None
        """vLLM's ``RequestStateStats`` of the first stream; None if vLLM keeps none."""
        self.spans = spans

    @property
    def trace_id(self) -> str | None:
        """Trace id in hexadecimal; None if the trace is not sampled."""
        return self.spans.trace_id if self.spans else None

    def since_start(self, moment: Moment | None) -> float | None:
        """Return the seconds from the request's arrival to `moment`."""
        return None if moment is None else round(moment - self.start.moment, 6)

    def delivered(self, text: str) -> None:
        """Keep text that is about to be sent, if the log includes text."""
        if self.texts is not None:
            self.texts.append(text)

    def received(self, output: Any) -> None:
        """Record the arrival of awaited tokens in an output of vLLM's."""
        self.awaiting_tokens = False
        if self.first_token is None:
            self.first_token, self.stats = time.monotonic(), output.metrics
        elif self.thought is not None:
            self.answer = time.monotonic()

    def received_all(self, output: Any) -> None:
        """Record the arrival of all tokens in one output; vLLM knows when the first one came."""
        self.stats = output.metrics
        if self.stats is not None:
            self.first_token = self.submitted + self.stats.first_token_latency

    def observe(self, controller: ExitController) -> None:
        """Record the natural end of the thinking, if `controller` has seen it."""
        if controller.reason is ExitReason.NATURAL:
            self.thought = time.monotonic()
            self.thinking, self.awaiting_tokens = False, True

    def probe_started(self, number: int) -> Mapping[str, Any]:
        """Record a probe that is sent or refused; return options for its ``generate`` call."""
        now = time.monotonic()
        if number == len(self.probes) < MAX_PROBES:
            self.probes.append(ProbeTimes(now))
        return self.spans.probe(number, now) if self.spans else {}

    def probe_answered(self, number: int) -> None:
        """Record that a probe was answered or failed."""
        if number < len(self.probes):
            self.probes[number].answered = time.monotonic()

    def probe_refused(self, number: int, refusal: Refusal) -> None:
        """Record that a probe was not sent."""
        if number < len(self.probes):
            self.probes[number].refused = refusal

    def truncated(self) -> None:
        """Record that an exit truncates the thinking."""
        self.thought = self.cut = time.monotonic()
        self.thinking, self.awaiting_tokens = False, True

    def answer_started(self) -> Mapping[str, Any]:
        """Record that the thinking was closed and the answer requested; return options for its
        ``generate`` call."""
        self.closed = time.monotonic()
        return self.spans.answer(self.closed) if self.spans else {}

    def finish(self, asked: Sequence[PendingDecision] = ()) -> None:
        """Record the end of the sequence; `asked` are the decisions of its controller."""
        self.asked = asked or self.asked
        self.ended = self.ended or time.monotonic()
