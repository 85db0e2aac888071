"""The interface of exit policies, and the types that they share."""

import enum
from dataclasses import dataclass
from typing import Protocol

from stepgrpo_core.policies.probes import Answer, ProbeSpec
from stepgrpo_core.policies.settings import ExitSettings

__all__ = [
    "Boundary",
    "BoundaryKind",
    "ExitPolicy",
    "ExitReason",
    "Matcher",
    "Needs",
    "Policy",
    "Verdict",
]


class ExitReason(enum.StrEnum):
    """Reason why the thinking ended; a closed set, used in the API, metrics and training logs."""

    NATURAL = "natural"
    """The model closed its thinking itself."""
    CONFIDENT = "confident"
    SUFFICIENT = "sufficient"
    VERIFIED = "verified"
    CONSISTENT = "consistent"
    MARGIN = "margin"
    ENTROPY = "entropy"
    GAVE_UP = "gave_up"
    BUDGET = "budget"
    PATTERN = "pattern"
    REPETITION = "repetition"
    CUSTOM = "custom"
    """A policy of the user's own."""
    EOS_IN_THINKING = "eos_in_thinking"
    """The model ended the completion without closing its thinking."""
    CLIENT = "client"
    """The client disconnected or asked for the answer."""
    LENGTH = "length"
    """The token limit was reached inside the thinking."""
    NONE = "none"
    """There was no thinking, or something else ended it, such as a stop string."""


class BoundaryKind(enum.Enum):
    """Kind of place where a policy may act; it also determines where the reasoning is truncated."""

    __hash__ = object.__hash__  # Enum's is slow, and set membership is tested for every token

    MARKER = "step marker"
    """Before the token that contains the start of the marker."""
    LINE = "line end"
    """After the token of a newline."""
    PARAGRAPH = "paragraph end"
    """After the token of the newline that ends an empty line."""
    SENTENCE = "sentence end"
    """After the token of a full stop, or of the newline of a line without one."""
    GAP = "paragraph end, long after a marker"
    """A paragraph end after `marker_gap` tokens without a marker. It does not count as a step."""
    ANY = "any token"
    """After any token that ends on a whole character."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """One place where a policy may act."""

    position: int
    """Generated tokens that an exit at this boundary keeps."""
    steps: int
    """Steps completed at the boundary."""
    reasoning_tokens: int
    """Tokens of `position` that come after ``<think>``."""
    kind: BoundaryKind = BoundaryKind.MARKER
    generated: int = 0
    """Reasoning tokens generated when the boundary was detected, at least `reasoning_tokens`."""
    room: float = 0
    """Tokens that may still be generated without using the answer's reserve."""
    text: str = ""
    """Reasoning since the policy's last boundary, for policies without a probe."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A policy's decision at one boundary; the thinking continues if `reason` is None."""

    reason: ExitReason | None = None
    confidence: float | None = None
    """Confidence in [0, 1], if the policy has one."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Boundaries at which a policy acts, and the probe that it needs there."""

    kinds: frozenset[BoundaryKind]
    min_tokens: int = 0
    """Minimum number of reasoning tokens before the first boundary."""
    probe: ProbeSpec | None = None
    """Probe at each boundary; None if the policy decides from the generated tokens alone."""
    min_interval: int = 0
    """Minimum number of reasoning tokens between two probes."""
    max_probes: int | None = None
    """Maximum number of probes; None means `ExitSettings.max_probes`."""


class ExitPolicy(Protocol):
    """Decides at boundaries.

    One instance serves one sequence and may keep state. Boundaries come in the order of their
    positions; those whose probe failed are skipped.
    """

    @property
    def needs(self) -> Needs:
        """Return the needs of the policy, constant for the sequence."""

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Decide whether to exit at `boundary`; `answer` belongs to the probe (see `ANSWERS`)."""


class Policy:
    """Base of policies that need nothing but their settings to be built."""

    def __init__(self, settings: ExitSettings) -> None:
        self.settings = settings


class Matcher(Protocol):
    """A compiled regular expression of a linear-time engine, such as google-re2's."""

    def search(self, text: str, /) -> object:
        """Return a true value if the expression matches anywhere in `text`."""
