"""Where a sequence is and what moves it on: every legal transition of the exit controller.

The diagram in docs/architecture.md is drawn from these tables.
"""

import enum
from collections.abc import Mapping

from stepgrpo_core.policies import ExitReason

__all__ = ["BY_POLICY", "REASONS", "THINKS", "TRANSITIONS", "Signal", "State", "reason_at_end"]


class State(enum.Enum):
    """Where a sequence is."""

    PRELUDE = "PRELUDE"
    THINKING = "THINKING"
    ANSWERING = "ANSWERING"
    DONE = "DONE"


THINKS = (State.PRELUDE, State.THINKING)
"""While there is thinking to close, or some may come."""


class Signal(enum.Enum):
    """What moves it on."""

    THINK_START = "<think>"
    UNOPENED = "text of a thought that needs no start"
    OTHER_TEXT = "other text"
    THINK_END = "</think>"
    EXIT = "policy exits"
    WISH = "client wants the answer"
    EOS = "end of sequence, closed"
    FINISHED = "stream ends"


TRANSITIONS: Mapping[State, Mapping[Signal, State]] = {
    State.PRELUDE: {
        Signal.THINK_START: State.THINKING,
        Signal.UNOPENED: State.THINKING,
        Signal.OTHER_TEXT: State.ANSWERING,
        Signal.FINISHED: State.DONE,
    },
    State.THINKING: {
        Signal.THINK_END: State.ANSWERING,
        Signal.EXIT: State.ANSWERING,
        Signal.WISH: State.ANSWERING,
        Signal.EOS: State.ANSWERING,
        Signal.FINISHED: State.DONE,
    },
    State.ANSWERING: {Signal.FINISHED: State.DONE},
    State.DONE: {},
}

_CUT_SHORT = frozenset({ExitReason.LENGTH, ExitReason.CLIENT, ExitReason.NONE})
BY_POLICY = frozenset(
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
"""What a policy can exit for."""

REASONS: Mapping[tuple[State, Signal], frozenset[ExitReason]] = {
    (State.PRELUDE, Signal.OTHER_TEXT): frozenset({ExitReason.NONE}),
    (State.PRELUDE, Signal.FINISHED): _CUT_SHORT,
    (State.THINKING, Signal.THINK_END): frozenset({ExitReason.NATURAL}),
    (State.THINKING, Signal.EXIT): BY_POLICY,
    (State.THINKING, Signal.WISH): frozenset({ExitReason.CLIENT}),
    (State.THINKING, Signal.EOS): frozenset({ExitReason.EOS_IN_THINKING}),
    (State.THINKING, Signal.FINISHED): _CUT_SHORT | {ExitReason.EOS_IN_THINKING},
}
"""The transitions that settle the exit reason, and what it may then be. Every path from the
start to DONE takes exactly one of them."""


def reason_at_end(cause: str, state: State) -> ExitReason:
    """Why the thinking ended with its stream, given the stream's `Cause`."""
    if cause == "eos" and state is State.THINKING:
        return ExitReason.EOS_IN_THINKING
    by_cause = {"length": ExitReason.LENGTH, "abort": ExitReason.CLIENT}
    return by_cause.get(cause, ExitReason.NONE)
