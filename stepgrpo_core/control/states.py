"""States and signals of the exit controller, with every legal transition.

The diagram in docs/architecture.md is drawn from these tables.
"""

import enum
from collections.abc import Mapping

from stepgrpo_core.policies import ExitReason

__all__ = ["BY_POLICY", "REASONS", "THINKS", "TRANSITIONS", "Signal", "State", "reason_at_end"]


class State(enum.Enum):
    """The state of a sequence."""

    PRELUDE = "PRELUDE"
    THINKING = "THINKING"
    ANSWERING = "ANSWERING"
    DONE = "DONE"


THINKS = (State.PRELUDE, State.THINKING)
"""States in which thinking may still be generated."""


class Signal(enum.Enum):
    """A cause of a transition."""

    THINK_START = "<think>"
    UNOPENED = "thinking without a start"
    OTHER_TEXT = "other text"
    THINK_END = "</think>"
    EXIT = "policy exits"
    FINISH = "client wants the answer"
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
        Signal.FINISH: State.ANSWERING,
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
        ExitReason.GAVE_UP,
        ExitReason.BUDGET,
        ExitReason.PATTERN,
        ExitReason.REPETITION,
        ExitReason.CUSTOM,
    }
)
"""The exit reasons that a policy may give."""

REASONS: Mapping[tuple[State, Signal], frozenset[ExitReason]] = {
    (State.PRELUDE, Signal.OTHER_TEXT): frozenset({ExitReason.NONE}),
    (State.PRELUDE, Signal.FINISHED): _CUT_SHORT,
    (State.THINKING, Signal.THINK_END): frozenset({ExitReason.NATURAL}),
    (State.THINKING, Signal.EXIT): BY_POLICY,
    (State.THINKING, Signal.FINISH): frozenset({ExitReason.CLIENT}),
    (State.THINKING, Signal.EOS): frozenset({ExitReason.EOS_IN_THINKING}),
    (State.THINKING, Signal.FINISHED): _CUT_SHORT | {ExitReason.EOS_IN_THINKING},
}
"""The transitions that set the exit reason, with the reasons they allow. Every path to DONE takes
exactly one of them."""


def reason_at_end(cause: str, state: State) -> ExitReason:
    """Return the exit reason of thinking that ended with its stream, by the stream's `Cause`."""
    if cause == "eos" and state is State.THINKING:
        return ExitReason.EOS_IN_THINKING
    by_cause = {"length": ExitReason.LENGTH, "abort": ExitReason.CLIENT}
    return by_cause.get(cause, ExitReason.NONE)
