"""The exit controller: when to put a trial answer, when to end the thinking, what to emit.

One controller serves one sequence. It is sans-IO: a driver tells it what happened (`Tokens`,
`ProbeAnswered`, `Finished`) and carries out the commands that come back (`StartProbe`,
`CancelProbe`, `Emit`, `CloseThinking`). It knows no engine, clock or socket, so a training
rollout and a server that feed it the same tokens see the same completion.

Theory. The main stream keeps generating while probes are in flight. A probe belongs to a
*position*, the number of generated tokens before the marker that announced the next step.
Decisions are taken in the order of positions, whatever the order in which answers arrive: the
first confident position wins, even if the stream has ended its thinking, or itself, by then.
So the emitted tokens are a function of the generated tokens alone, never of time or load.
Tokens that an undecided position could still cut away are held back, and so is text that could
still grow into a marker. The cut falls before the token in which the marker starts; what is
emitted is always a prefix of the generated tokens, then the closing tokens, then the answer.

Text is derived, ids are the truth: the text of each token is its increment in a streaming
decoder ("" while a character is incomplete), and a character offset maps back to the first
token that carries a part of that character.
"""

import enum
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from stepgrpo_core.errors import ProtocolViolation
from stepgrpo_core.events import (
    CancelProbe,
    Cause,
    CloseThinking,
    Command,
    Emit,
    Event,
    Finished,
    Outcome,
    ProbeAnswered,
    StartProbe,
    ThinkingFormat,
    Tokens,
)
from stepgrpo_core.policies import Boundary, ExitReason, ExitSettings, Trial, build_policy
from stepgrpo_core.segmenter import Marker, StepSegmenter

__all__ = ["REASONS", "TRANSITIONS", "ExitController", "Signal", "State"]


class State(enum.Enum):
    """Where a sequence is."""

    PRELUDE = "PRELUDE"
    THINKING = "THINKING"
    ANSWERING = "ANSWERING"
    DONE = "DONE"


class Signal(enum.Enum):
    """What moves it on."""

    THINK_START = "<think>"
    OTHER_TEXT = "other text"
    THINK_END = "</think>"
    EXIT = "policy exits"
    FINISHED = "stream ends"


TRANSITIONS: Mapping[State, Mapping[Signal, State]] = {
    State.PRELUDE: {
        Signal.THINK_START: State.THINKING,
        Signal.OTHER_TEXT: State.ANSWERING,
        Signal.FINISHED: State.DONE,
    },
    State.THINKING: {
        Signal.THINK_END: State.ANSWERING,
        Signal.EXIT: State.ANSWERING,
        Signal.FINISHED: State.DONE,
    },
    State.ANSWERING: {Signal.FINISHED: State.DONE},
    State.DONE: {},
}

_CUT_SHORT = frozenset({ExitReason.LENGTH, ExitReason.CLIENT, ExitReason.NONE})
_BY_POLICY = frozenset(
    {
        ExitReason.CONFIDENT,
        ExitReason.SUFFICIENT,
        ExitReason.VERIFIED,
        ExitReason.CONSISTENT,
        ExitReason.MARGIN,
        ExitReason.ENTROPY,
        ExitReason.BUDGET,
        ExitReason.PATTERN,
        ExitReason.REPETITION,
    }
)

REASONS: Mapping[tuple[State, Signal], frozenset[ExitReason]] = {
    (State.PRELUDE, Signal.OTHER_TEXT): frozenset({ExitReason.NONE}),
    (State.PRELUDE, Signal.FINISHED): _CUT_SHORT,
    (State.THINKING, Signal.THINK_END): frozenset({ExitReason.NATURAL}),
    (State.THINKING, Signal.EXIT): _BY_POLICY,
    (State.THINKING, Signal.FINISHED): _CUT_SHORT | {ExitReason.EOS_IN_THINKING},
}
"""The transitions that settle the exit reason, and what it may then be. Every path from the
start to DONE takes exactly one of them."""

MAX_FAILURES = 3  # failed probes in a row after which a sequence puts no more


@dataclass(slots=True)
class _Pending:
    probe: int
    boundary: Boundary
    answered: bool = False
    trial: Trial | None = None


class ExitController:
    """Drives one sequence; see the module's theory.

    `max_tokens` is the limit on emitted tokens (None: no limit). `thinking_open` says that the
    prompt already ended in ``<think>``.
    """

    def __init__(
        self,
        settings: ExitSettings,
        thinking: ThinkingFormat,
        *,
        max_tokens: int | None = None,
        thinking_open: bool = False,
    ) -> None:
        self.state = State.THINKING if thinking_open else State.PRELUDE
        self.reason: ExitReason | None = None
        self._settings = settings
        self._thinking = thinking
        self._limit = math.inf if max_tokens is None else max_tokens
        self._policy = build_policy(settings)
        self._segmenter = StepSegmenter(settings.markers)
        self._begin = 0  # first thinking token
        self._starts: list[int] = []  # character offset at which each thinking token starts
        self._characters = 0
        self._steps_done = 1  # before the next marker
        self._received = 0  # generated tokens of the current stream
        self._emitted = 0  # of those
        self._thinking_end: int | None = None  # index of </think>, once seen
        self._finished: Cause | None = None
        self._pending: deque[_Pending] = deque()
        self._probes = 0
        self._failures = 0
        self._failures_in_a_row = 0
        self._last_probe = -math.inf
        self._exit: Boundary | None = None
        self._confidences: list[float] = []
        self._shadow_reason: ExitReason | None = None

    def receive(self, event: Event) -> list[Command]:
        """Take one event; return the commands to carry out, in order.

        Raises ProtocolViolation for an event that the state does not allow.
        """
        commands: list[Command] = []
        if isinstance(event, Tokens):
            self._take_tokens(event, commands)
        elif isinstance(event, ProbeAnswered):
            self._take_answer(event)
        else:
            self._take_end(event, commands)
        self._settle(commands)
        return commands

    @property
    def outcome(self) -> Outcome:
        """The account of a sequence that is DONE."""
        if self.reason is None or self.state is not State.DONE:
            raise ProtocolViolation(f"outcome asked for in state {self.state.value}")
        return Outcome(
            reason=self.reason,
            steps=self._steps(),
            reasoning_tokens=self._reasoning_tokens(),
            probes=self._probes,
            failed_probes=self._failures,
            confidences=tuple(self._confidences),
            shadow_reason=self._shadow_reason,
        )

    # Events.

    def _take_tokens(self, event: Tokens, commands: list[Command]) -> None:
        if self.state is State.DONE or self._finished:
            raise ProtocolViolation("tokens after the end of the stream")
        for token, text in zip(event.ids, event.texts, strict=True):
            if self.state is State.PRELUDE:
                self._take_prelude(token, text)
            elif self.state is State.THINKING and self._thinking_end is None:
                self._take_thinking(token, text, commands)
            self._received += 1

    def _take_prelude(self, token: int, text: str) -> None:
        if token == self._thinking.start_id:
            self._begin = self._received + 1
            self._move(Signal.THINK_START)
        elif text.strip():
            self._move(Signal.OTHER_TEXT, ExitReason.NONE)

    def _take_thinking(self, token: int, text: str, commands: list[Command]) -> None:
        if token == self._thinking.end_id:
            self._thinking_end = self._received
            self._segmenter.finish()  # counts; a boundary at the end is no place to exit
            return
        self._starts.append(self._characters)
        self._characters += len(text)
        for marker in self._segmenter.feed(text):
            self._consider(marker, commands)

    def _take_answer(self, event: ProbeAnswered) -> None:
        if not 0 <= event.probe < self._probes:
            raise ProtocolViolation(f"answer of probe {event.probe}, which was never started")
        for pending in self._pending:  # a cancelled probe is not there, and may answer late
            if pending.probe == event.probe:
                pending.answered, pending.trial = True, event.trial

    def _take_end(self, event: Finished, commands: list[Command]) -> None:
        aborted = event.cause == "abort"  # may come at any time
        if self.state is State.DONE or (self._finished and not aborted):
            raise ProtocolViolation("the stream ended twice")
        self._finished = event.cause
        if self.state is State.THINKING and self._thinking_end is None:
            self._segmenter.finish()
        if aborted:
            self._cancel_probes(commands)

    # Decisions.

    def _consider(self, marker: Marker, commands: list[Command]) -> None:
        """Put a probe at the end of the step before `marker`, if the limits allow it."""
        question = self._policy.question
        position = self._begin + self._token_at(marker.start)
        boundary = Boundary(position, self._steps_done, position - self._begin)
        self._steps_done += 1
        if question is None or not self._allowed(boundary):
            return
        commands.append(StartProbe(self._probes, position, question))
        self._pending.append(_Pending(self._probes, boundary))
        self._probes += 1
        self._last_probe = position

    def _allowed(self, boundary: Boundary) -> bool:
        settings = self._settings
        return (
            self._may_probe()
            and boundary.reasoning_tokens >= max(settings.min_tokens, 1)
            and boundary.position - self._last_probe >= settings.min_interval
            and self._answer_fits(boundary.position)
        )

    def _may_probe(self) -> bool:
        return (
            self._policy.question is not None
            and self._probes < self._settings.max_probes
            and self._failures_in_a_row < MAX_FAILURES
            and self._shadow_reason is None
        )

    def _answer_fits(self, position: int) -> bool:
        used = position + len(self._thinking.closing_ids)
        return self._limit - used >= self._settings.answer_reserve

    def _settle(self, commands: list[Command]) -> None:
        """Take every decision that is due, then emit what no decision can cut away."""
        while self._pending and self._pending[0].answered:
            self._decide(self._pending.popleft(), commands)
        self._emit(commands)
        if self._pending:
            return
        if self._thinking_end is not None and self.state is State.THINKING:
            self._move(Signal.THINK_END, ExitReason.NATURAL)
        if self._finished:
            self._move(Signal.FINISHED, self._reason_at_end(self._finished))

    def _decide(self, pending: _Pending, commands: list[Command]) -> None:
        if pending.trial is None:
            self._failures += 1
            self._failures_in_a_row += 1
            return
        self._failures_in_a_row = 0
        verdict = self._policy.decide(pending.boundary, pending.trial)
        self._confidences.append(verdict.confidence)
        if verdict.reason is None:
            return
        if self._settings.shadow:
            self._shadow_reason = verdict.reason
            self._cancel_probes(commands)
        else:
            self._close(pending.boundary, verdict.reason, commands)

    def _close(self, boundary: Boundary, reason: ExitReason, commands: list[Command]) -> None:
        self._cancel_probes(commands)
        if boundary.position > self._emitted:
            commands.append(Emit(boundary.position - self._emitted))
        commands.append(CloseThinking(boundary.position, self._thinking.closing_ids, reason))
        self._move(Signal.EXIT, reason)
        self._exit = boundary
        self._received = self._emitted = 0  # the answer is a new stream
        self._finished = None

    def _cancel_probes(self, commands: list[Command]) -> None:
        commands += [CancelProbe(pending.probe) for pending in self._pending]
        self._pending.clear()

    def _emit(self, commands: list[Command]) -> None:
        count = self._frontier() - self._emitted
        if count > 0:
            commands.append(Emit(count))
            self._emitted += count

    def _frontier(self) -> int:
        """How many tokens of the current stream are safe from being cut away."""
        if self._settings.shadow:
            return self._received
        if self._pending:
            return self._pending[0].boundary.position
        in_thinking = self.state is State.THINKING and self._thinking_end is None
        if in_thinking and self._may_probe() and not self._finished:
            return self._begin + self._token_at(self._segmenter.undecided)
        return self._received

    # Bookkeeping.

    def _move(self, signal: Signal, reason: ExitReason | None = None) -> None:
        allowed = REASONS.get((self.state, signal))
        if allowed is not None:
            if reason not in allowed:
                raise ProtocolViolation(f"{signal.value} in {self.state.value} for {reason}")
            self.reason = reason
        self.state = TRANSITIONS[self.state][signal]

    def _reason_at_end(self, cause: Cause) -> ExitReason:
        if cause == "eos" and self.state is State.THINKING:
            return ExitReason.EOS_IN_THINKING
        by_cause = {"length": ExitReason.LENGTH, "abort": ExitReason.CLIENT}
        return by_cause.get(cause, ExitReason.NONE)

    def _token_at(self, offset: int) -> int:
        """The first thinking token that carries a part of the character at `offset`."""
        index = bisect_left(self._starts, offset)
        starts_there = index < len(self._starts) and self._starts[index] == offset
        if not starts_there and offset < self._characters:
            index -= 1  # the character is inside a token
        while 0 < index < len(self._starts) and self._starts[index - 1] == self._starts[index]:
            index -= 1  # a token with no text yet carries the first bytes
        return index

    def _steps(self) -> int:
        if self._exit:
            return self._exit.steps
        return self._segmenter.steps if self._starts or self._thinking_end is not None else 0

    def _reasoning_tokens(self) -> int:
        if self._exit:
            closing = self._thinking.closing_ids
            return self._exit.reasoning_tokens + closing.index(self._thinking.end_id)
        return len(self._starts)
