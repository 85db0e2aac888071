"""When what happened to one sequence: noted once per event, read when it has ended.

Moments are of the monotonic clock, so a wall clock that jumps moves nothing. A sequence that nobody
follows has `NULL_TIMELINE`, on which everything is without effect.
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
    "NULL_TIMELINE",
    "Moment",
    "NullTimeline",
    "ProbeTimes",
    "Spans",
    "Start",
    "Timeline",
]

MAX_PROBES = 64  # of one sequence that are remembered; operators may allow more

Moment = float
"""Seconds, by ``time.monotonic``."""


@dataclass(frozen=True, slots=True)
class Start:
    """When a request came."""

    moment: Moment
    wall: int
    """Nanoseconds since 1970, as a wall clock had them."""

    @classmethod
    def at(cls, moment: Moment) -> "Start":
        """A request that came at this moment, of late."""
        return cls(moment, time.time_ns() - round((time.monotonic() - moment) * 1e9))

    def wall_at(self, moment: Moment) -> int:
        """What a wall clock that never jumped would show then, in nanoseconds since 1970."""
        return self.wall + round((moment - self.moment) * 1e9)


class Spans(Protocol):
    """The spans of a sequence that a trace follows."""

    @property
    def trace_id(self) -> str | None:
        """Of the trace, in hexadecimal; None where nobody keeps it."""

    def probe(self, number: int, moment: Moment) -> Mapping[str, Any]:
        """A probe is put; with it go these options of ``generate``."""

    def answer(self, moment: Moment) -> Mapping[str, Any]:
        """The answer after a cut is asked for; with it go these options."""


@dataclass(slots=True)
class ProbeTimes:
    """Of one probe."""

    asked: Moment
    answered: Moment | None = None
    refused: Refusal | None = None
    """It was not put."""


class Timeline:
    """When what happened to one sequence."""

    recording = True

    def __init__(
        self,
        request_id: str,
        start: Start,
        *,
        texts: deque[str] | None = None,
        spans: Spans | None = None,
    ) -> None:
        self.request_id = request_id
        """As the engine has it."""
        self.start = start
        self.submitted = time.monotonic()
        """The request went to the engine."""
        self.texts = texts
        """What was delivered; None where nobody asked for it."""
        self.awaiting_tokens = True
        """The next tokens are the first, or the answer's first: to be told to `took`."""
        self.thinking = True
        """The thinking has not ended: the controller is to be shown to `see`."""
        self.first_token: Moment | None = None
        self.thought: Moment | None = None
        """The thinking ended: its end came, or it was cut."""
        self.cut: Moment | None = None
        self.closed: Moment | None = None
        """The closing was injected."""
        self.answer: Moment | None = None
        """Its first token came."""
        self.ended: Moment | None = None
        self.probes: list[ProbeTimes] = []
        """By number."""
        self.asked: Sequence[PendingDecision] = ()
        """By number, with what was decided; once the sequence has ended."""
        self.stats: Any = None
        """vLLM's ``RequestStateStats`` of the first stream; None where it keeps none."""
        self.spans = spans

    @property
    def trace_id(self) -> str | None:
        """Of its trace, in hexadecimal; None where nobody keeps one."""
        return self.spans.trace_id if self.spans else None

    def received(self, output: Any) -> None:
        """Tokens that were awaited came in an output of vLLM's."""
        self.awaiting_tokens = False
        if self.first_token is None:
            self.first_token, self.stats = time.monotonic(), output.metrics
        elif self.thought is not None:
            self.answer = time.monotonic()

    def received_all(self, output: Any) -> None:
        """All tokens came in one output of vLLM's, which knows when it had the first."""
        self.stats = output.metrics
        if self.stats is not None:
            self.first_token = self.submitted + self.stats.first_token_latency

    def observe(self, controller: ExitController) -> None:
        """The controller has dealt with an event."""
        if controller.reason is ExitReason.NATURAL:
            self.thought = time.monotonic()
            self.thinking, self.awaiting_tokens = False, True

    def probe_started(self, number: int) -> Mapping[str, Any]:
        """A probe is put, or will be refused; with it go these options of ``generate``."""
        now = time.monotonic()
        if number == len(self.probes) < MAX_PROBES:
            self.probes.append(ProbeTimes(now))
        return self.spans.probe(number, now) if self.spans else {}

    def probe_answered(self, number: int) -> None:
        """A probe has answered, or failed."""
        if number < len(self.probes):
            self.probes[number].answered = time.monotonic()

    def probe_refused(self, number: int, refusal: Refusal) -> None:
        """A probe was not put."""
        if number < len(self.probes):
            self.probes[number].refused = refusal

    def truncated(self) -> None:
        """The thinking is being cut."""
        self.thought = self.cut = time.monotonic()
        self.thinking, self.awaiting_tokens = False, True

    def answer_started(self) -> Mapping[str, Any]:
        """The closing is injected and the answer asked for; with it go these options."""
        self.closed = time.monotonic()
        return self.spans.answer(self.closed) if self.spans else {}

    def finish(self, asked: Sequence[PendingDecision] = ()) -> None:
        """The sequence has ended; `asked` are its controller's questions."""
        self.asked = asked or self.asked
        self.ended = self.ended or time.monotonic()


class NullTimeline:
    """Of a sequence that nobody follows: nothing is noted."""

    recording = awaiting_tokens = thinking = False
    texts = trace_id = None

    def received(self, output: Any) -> None:
        """Nothing."""

    def received_all(self, output: Any) -> None:
        """Nothing."""

    def observe(self, controller: ExitController) -> None:
        """Nothing."""

    def probe_started(self, number: int) -> Mapping[str, Any]:
        """No options."""
        del number
        return {}

    def probe_answered(self, number: int) -> None:
        """Nothing."""

    def probe_refused(self, number: int, refusal: Refusal) -> None:
        """Nothing."""

    def truncated(self) -> None:
        """Nothing."""

    def answer_started(self) -> Mapping[str, Any]:
        """No options."""
        return {}

    def finish(self, asked: Sequence[PendingDecision] = ()) -> None:
        """Nothing."""


NULL_TIMELINE = NullTimeline()
