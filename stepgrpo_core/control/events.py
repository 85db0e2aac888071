"""The protocol between a driver and the exit controller: events in, commands out."""

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
"""The end of a stream: an end-of-sequence token, a stop string, the token limit, or an abort."""


@dataclass(frozen=True, slots=True)
class ThinkingFormat:
    """The tokens and texts that delimit a model's thinking."""

    start_id: int
    """The ``<think>`` token; the last one if several tokens start the thinking."""
    end_id: int
    """The ``</think>`` token; the last one if several end the thinking."""
    closing_ids: tuple[int, ...]
    """Injected on exit, `end_id` included. Empty: the thinking is only counted."""
    before_start: tuple[int, ...] = ()
    """Tokens before `start_id`, if several start the thinking."""
    before_end: tuple[int, ...] = ()
    """Tokens before `end_id`, if several end the thinking."""
    tool_ids: frozenset[int] = frozenset()
    """Tokens that open a tool call. One of them ends the thinking, as in vLLM's parsers, so
    nothing is ever closed inside a tool call."""
    tool_starts: tuple[tuple[int, ...], ...] = ()
    """Sequences of tokens that open a tool call."""
    start_text: str = ""
    """The text that starts the thinking, if text delimits it: its tokens may merge with neighbors,
    and `start_id` and `end_id` never occur. Empty: tokens delimit the thinking."""
    end_text: str = ""
    """The text that ends the thinking, if text delimits it."""
    tool_texts: tuple[str, ...] = ()
    """Texts that open a tool call, if text delimits the thinking."""
    bare_ids: tuple[int, ...] = ()
    """The closing for an answer that must not begin with white space. Empty: the closing up to
    `end_id`, or all of it if several tokens start the thinking."""
    closing_thought: int | None = None
    """Tokens of the closing that still belong to the thinking; None: those before `end_id`."""

    def closing_at_end(self) -> "ThinkingFormat":
        """Return the format with a closing after which an answer may begin at once."""
        if self.bare_ids:
            return replace(self, closing_ids=self.bare_ids)
        if self.before_start or not self.closing_ids:
            return self
        last = self.closing_ids.index(self.end_id)
        return replace(self, closing_ids=self.closing_ids[: last + 1])

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Stop tokens of a trial inside the thinking; empty if text ends the thinking."""
        return () if self.end_text else (self.end_id,)

    @property
    def cost(self) -> float:
        """Number of tokens that a close injects; infinite if there is no closing."""
        return len(self.closing_ids) or math.inf

    @property
    def thought_in_closing(self) -> int:
        """Number of tokens of the closing that still belong to the thinking."""
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
    """A probe returned; `answer` is None if it failed or the driver cannot run it."""

    probe: int
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class ProbeRefused:
    """The driver has no capacity for the probe and did not run it. This is not a failure: only
    the policy's interval counts it."""

    probe: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The current stream ended: the main one, or after `CloseThinking` the answer's.

    With cause "eos", the last of its `Tokens` is the end-of-sequence token; pass both in one call
    of `receive`.
    """

    cause: Cause


@dataclass(frozen=True, slots=True)
class FinishThinking:
    """The client wants the answer now. The thinking is closed after its last complete token, also
    in shadow mode; without thinking in progress, nothing happens."""


Event = Tokens | ProbeAnswered | ProbeRefused | Finished | FinishThinking


@dataclass(frozen=True, slots=True)
class StartProbe:
    """Run a probe after the first `position` generated tokens."""

    probe: int
    position: int
    spec: ProbeSpec


@dataclass(frozen=True, slots=True)
class CancelProbe:
    """Cancel a probe: its answer no longer matters."""

    probe: int


@dataclass(frozen=True, slots=True)
class Emit:
    """Send the next `count` generated tokens of the current stream to the client."""

    count: int


@dataclass(frozen=True, slots=True)
class CloseThinking:
    """Stop the main stream, drop its tokens from `position` on, and emit `closing_ids`. Then
    generate the answer after prompt + kept tokens + `closing_ids` as the new current stream."""

    position: int
    closing_ids: tuple[int, ...]
    reason: ExitReason


Command = StartProbe | CancelProbe | Emit | CloseThinking


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a sequence."""

    reason: ExitReason
    steps: int
    """k of the emitted thinking; 0 without thinking."""
    reasoning_tokens: int
    """Emitted tokens between ``<think>`` and ``</think>``."""
    probes: int
    """Probes started, without those refused."""
    failed_probes: int
    confidences: tuple[float, ...]
    """Confidences of the decided answers, in order, if the policy computes them."""
    shadow_reason: ExitReason | None
    """The exit reason that a policy in shadow mode would have given."""
    policy_failed: bool = False
    """A policy raised an exception, and from there on no policy acted."""

    @property
    def confidence(self) -> float | None:
        """Confidence of the last decision; None without one."""
        return self.confidences[-1] if self.confidences else None
