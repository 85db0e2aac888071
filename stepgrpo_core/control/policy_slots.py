"""One policy in one sequence: its limits, its cost, and its pending decisions."""

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
    ProbeSpec,
    Verdict,
)

__all__ = [
    "MAX_FAILURES",
    "Guard",
    "OpenPlaces",
    "PendingDecision",
    "PolicySlot",
    "kinds_of",
    "unguarded",
]

MAX_FAILURES = 3  # failed probes in a row after which a policy starts no more


Guard = Callable[[Callable[[], Verdict]], Verdict]
"""Runs a decision."""


def unguarded(decide: Callable[[], Verdict]) -> Verdict:
    """Run a decision without a time limit."""
    return decide()


class PolicySlot:
    """One policy with limits of its own.

    Probes of other policies do not count toward them, so limits apply at the same positions
    however late answers arrive.
    """

    def __init__(
        self, policy: ExitPolicy, settings: ExitSettings, guard: Guard = unguarded
    ) -> None:
        self.policy = policy
        self.needs = policy.needs
        self.failures_in_a_row = 0
        self.read = 0
        """Thinking tokens whose text the policy has seen."""
        self._settings = settings
        self._guard = guard
        self._probes = 0
        self._probe_tokens = 0  # at most
        self._last = -math.inf  # position of the last probe

    @property
    def active(self) -> bool:
        """True if the policy can still act."""
        if self.needs.probe is None:
            return True
        own = self.needs.max_probes
        most = self._settings.max_probes if own is None else own
        return self._probes < most and self.failures_in_a_row < MAX_FAILURES

    def may_ask(self, spec: ProbeSpec, boundary: Boundary) -> bool:
        """Return whether the limits allow a probe with `spec` at `boundary`."""
        settings = self._settings
        growth = min(max(self._probes - 1, 0), 64)  # larger exponents overflow
        interval = self.needs.min_interval * settings.probe_backoff**growth
        cost = self._probe_tokens + spec.max_tokens
        share = settings.probe_share
        return (
            self.active
            and boundary.position - self._last >= max(interval, 1)
            and (share is None or cost <= share * boundary.reasoning_tokens)
        )

    def asked(self, spec: ProbeSpec, boundary: Boundary) -> None:
        """Count a probe."""
        self._probes += 1
        self._probe_tokens += spec.max_tokens
        self._last = boundary.position

    def not_asked(self, spec: ProbeSpec) -> None:
        """Undo the count of a refused probe; the interval still starts at its position."""
        self._probes -= 1
        self._probe_tokens -= spec.max_tokens

    def fails(self) -> bool:
        """Count a failed probe; return whether it is the last that the policy may start."""
        self.failures_in_a_row += 1
        return self.failures_in_a_row == MAX_FAILURES

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Return the policy's verdict; raises what the policy raises, or PolicyFailed if the
        exit reason is not a policy's."""
        verdict = self._guard(lambda: self.policy.decide(boundary, answer))
        if verdict.reason is not None and verdict.reason not in BY_POLICY:
            raise PolicyFailed(f"a policy cannot exit for {verdict.reason!r}")
        return verdict


def kinds_of(slots: Iterable[PolicySlot]) -> frozenset[BoundaryKind]:
    """Return the boundary kinds at which any of these policies acts."""
    return frozenset[BoundaryKind]().union(*(slot.needs.kinds for slot in slots))


class OpenPlaces:
    """Caches the boundary kinds at which a policy can still act, which is read for every token."""

    def __init__(self) -> None:
        self._active: list[bool] = []  # by slot, at the last change
        self._places = frozenset[BoundaryKind]()

    def of(self, slots: Sequence[PolicySlot]) -> frozenset[BoundaryKind]:
        """Return the boundary kinds of the active policies."""
        active = [slot.active for slot in slots]
        if active != self._active:
            self._active = active
            self._places = kinds_of(slot for slot in slots if slot.active)
        return self._places


@dataclass(slots=True, eq=False)
class PendingDecision:
    """A decision that waits for its probe or for earlier decisions, and its verdict."""

    boundary: Boundary
    slot: PolicySlot
    probe: int | None = None
    spec: ProbeSpec | None = None
    """What the probe is; None: the policy needs none."""
    answered: bool = False
    answer: Answer | None = None
    """The probe's answer; None although `answered`: the probe failed."""
    verdict: Verdict | None = None
    """None: not decided yet, or dropped because of an earlier decision."""
