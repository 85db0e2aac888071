"""A policy at work in one sequence: what it has cost, and its decisions that wait."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stepgrpo_core.control.states import BY_POLICY
from stepgrpo_core.errors import PolicyFailed
from stepgrpo_core.policies import (
    Answer,
    Boundary,
    BoundaryKind,
    ExitPolicy,
    ExitSettings,
    Question,
    Verdict,
)

__all__ = [
    "MAX_FAILURES",
    "Guard",
    "OpenPlaces",
    "PendingDecision",
    "PolicySlot",
    "places_of",
    "unguarded",
]

MAX_FAILURES = 3  # failed probes of a policy in a row after which it puts no more


Guard = Callable[[Callable[[], Verdict]], Verdict]
"""Runs a decision."""


def unguarded(decide: Callable[[], Verdict]) -> Verdict:
    """Run it, whatever it takes."""
    return decide()


class PolicySlot:
    """One policy. Its limits are its own: what another asks or fails takes nothing from it, so
    they bind at the same positions however late answers come."""

    def __init__(
        self, policy: ExitPolicy, settings: ExitSettings, guard: Guard = unguarded
    ) -> None:
        self.policy = policy
        self.needs = policy.needs
        self.failures_in_a_row = 0
        self.read = 0
        """Thinking tokens whose text it has seen."""
        self._settings = settings
        self._guard = guard
        self._probes = 0
        self._probe_tokens = 0  # at most
        self._last = -math.inf  # position of the last question

    @property
    def active(self) -> bool:
        """Whether it can still act."""
        if self.needs.question is None:
            return True
        own = self.needs.max_probes
        most = self._settings.max_probes if own is None else own
        return self._probes < most and self.failures_in_a_row < MAX_FAILURES

    def may_ask(self, question: Question, boundary: Boundary) -> bool:
        """Whether the limits allow `question` at `boundary`."""
        settings = self._settings
        growth = min(max(self._probes - 1, 0), 64)  # more would overflow, and change nothing
        interval = self.needs.min_interval * settings.probe_backoff**growth
        cost = self._probe_tokens + question.max_tokens
        share = settings.probe_share
        return (
            self.active
            and boundary.position - self._last >= max(interval, 1)
            and (share is None or cost <= share * boundary.reasoning_tokens)
        )

    def asked(self, question: Question, boundary: Boundary) -> None:
        """Enter a question."""
        self._probes += 1
        self._probe_tokens += question.max_tokens
        self._last = boundary.position

    def not_asked(self, question: Question) -> None:
        """Take a question back that was entered, but not put; the interval runs all the same."""
        self._probes -= 1
        self._probe_tokens -= question.max_tokens

    def fails(self) -> bool:
        """Enter a failed probe; whether it is the one after which no more are put."""
        self.failures_in_a_row += 1
        return self.failures_in_a_row == MAX_FAILURES

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """The policy's verdict; raises whatever it raises, and for a reason that is not its own."""
        verdict = self._guard(lambda: self.policy.decide(boundary, answer))
        if verdict.reason is not None and verdict.reason not in BY_POLICY:
            raise PolicyFailed(f"a policy cannot exit for {verdict.reason!r}")
        return verdict


def places_of(slots: Iterable[PolicySlot]) -> frozenset[BoundaryKind]:
    """Where any of them acts."""
    return frozenset[BoundaryKind]().union(*(slot.needs.places for slot in slots))


class OpenPlaces:
    """Where a policy can still act: asked for with every token, and seldom new."""

    def __init__(self) -> None:
        self._active: list[bool] = []  # by slot, when the places were found
        self._places = frozenset[BoundaryKind]()

    def of(self, slots: Sequence[PolicySlot]) -> frozenset[BoundaryKind]:
        """The places of those that are active."""
        active = [slot.active for slot in slots]
        if active != self._active:
            self._active = active
            self._places = places_of(slot for slot in slots if slot.active)
        return self._places


@dataclass(slots=True, eq=False)
class PendingDecision:
    """A decision that waits for its probe, or for those before it; then, what was decided."""

    boundary: Boundary
    slot: PolicySlot
    probe: int | None = None
    question: Question | None = None
    """Its probe's; None: the policy asks nothing."""
    answered: bool = False
    answer: Answer | None = None
    """None once `answered`: the probe failed."""
    verdict: Verdict | None = None
    """None: not yet, or never, for a decision before it made it needless."""
