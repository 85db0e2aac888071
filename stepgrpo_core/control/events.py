"""What a driver and the exit controller say to each other: events in, commands out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from stepgrpo_core.policies import Answer, ExitReason, ProbeSpec

__all__ = [
    "CancelProbe",
    "Cause",
    "CloseThinking",
    "Command",
    "Emit",
    "Event",
    "FinishThinking",
    "Finished",
    "Outcome",
    "ProbeAnswered",
    "ProbeRefused",
    "StartProbe",
    "ThinkingFormat",
    "Tokens",
]

Cause = Literal["eos", "stop", "length", "abort"]
"""Why a stream ended: end-of-sequence token, stop string, token limit, or aborted."""


@dataclass(frozen=True, slots=True)
class ThinkingFormat:
    """How a model's tokenizer writes thinking."""

    start_id: int
    """The ``<think>`` token; the last one, where several tokens start the thinking."""
    end_id: int
    """The ``</think>`` token; the last one, where several end it."""
    closing_ids: tuple[int, ...]
    """Injected on exit; holds `end_id`. Empty: the thinking is only counted."""
    before_start: tuple[int, ...] = ()
    """The others of several that start the thinking."""
    before_end: tuple[int, ...] = ()
    """The others of several that end it."""
    tool_ids: frozenset[int] = frozenset()
    """Tokens that open a tool call. One in the thinking ends it, as vLLM's parsers read it; so
    nothing is ever closed inside a tool call."""
    tool_starts: tuple[tuple[int, ...], ...] = ()
    """Sequences of tokens that do."""
    start_text: str = ""
    """Starts the thinking where it is marked by text, whose tokens may merge with their
    neighbours'; `start_id` and `end_id` then never occur. Empty: marked by tokens."""
    end_text: str = ""
    """Ends it there."""
    tool_texts: tuple[str, ...] = ()
    """Open a tool call there."""
    bare_ids: tuple[int, ...] = ()
    """The closing up to where an answer begins that may not begin with white space. Empty: up to
    `end_id`, or all of it where several tokens start thinking."""
    closing_thought: int | None = None
    """Tokens of the closing that are thinking still; None: those before `end_id`."""

    def closing_at_end(self) -> "ThinkingFormat":
        """The same with nothing injected after the end but what opens an answer."""
        if self.bare_ids:
            return replace(self, closing_ids=self.bare_ids)
        if self.before_start or not self.closing_ids:
            return self
        last = self.closing_ids.index(self.end_id)
        return replace(self, closing_ids=self.closing_ids[: last + 1])

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens at which a trial inside the thinking may be stopped; none where text ends it."""
        return () if self.end_text else (self.end_id,)

    @property
    def cost(self) -> float:
        """Tokens that a close takes; infinitely many where there is none."""
        return len(self.closing_ids) or math.inf

    @property
    def thought_in_closing(self) -> int:
        """Tokens of the closing that are thinking still."""
        if self.closing_thought is not None:
            return self.closing_thought
        return self.closing_ids.index(self.end_id) - len(self.before_end)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The stream generated these ids; `texts` are their increments in a streaming decoder."""

    ids: Sequence[int]
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """A probe returned; `answer` is None when it failed or the driver cannot put its question."""

    probe: int
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class ProbeRefused:
    """The driver has no room for the probe: its question was not put. That is no failure, and
    costs the policy nothing but its interval."""

    probe: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The stream ended: the main one, or after `CloseThinking` the answer's. "eos" means that the
    last of its `Tokens` is the token that ended it; pass both in one `receive`."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class FinishThinking:
    """The client wants the answer now. Thinking is closed after its last complete token, in shadow
    mode too; where none is going on, nothing happens."""


Event = Tokens | ProbeAnswered | ProbeRefused | Finished | FinishThinking


@dataclass(frozen=True, slots=True)
class StartProbe:
    """Put the question after the first `position` generated tokens."""

    probe: int
    position: int
    question: ProbeSpec


@dataclass(frozen=True, slots=True)
class CancelProbe:
    """The probe's answer no longer matters."""

    probe: int


@dataclass(frozen=True, slots=True)
class Emit:
    """Pass the next `count` generated tokens of the current stream on."""

    count: int


@dataclass(frozen=True, slots=True)
class CloseThinking:
    """Stop the main stream, drop what it generated from `position` on, emit `closing_ids`, and
    generate the answer after prompt + kept tokens + `closing_ids` as the new current stream."""

    position: int
    closing_ids: tuple[int, ...]
    reason: ExitReason


Command = StartProbe | CancelProbe | Emit | CloseThinking


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a sequence."""

    reason: ExitReason
    steps: int
    """k of the emitted thinking; 0 without thinking."""
    reasoning_tokens: int
    """Emitted tokens between ``<think>`` and ``</think>``."""
    probes: int
    """Questions put."""
    failed_probes: int
    confidences: tuple[float, ...]
    """Of the answers that were decided on, in order, where the policy has one."""
    shadow_reason: ExitReason | None
    """What a policy in shadow mode would have done."""
    policy_failed: bool = False
    """A policy raised, or gave no verdict: from there on none acted."""

    @property
    def confidence(self) -> float | None:
        """Of the last decision; None before any."""
        return self.confidences[-1] if self.confidences else None
