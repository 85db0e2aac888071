"""What an exit policy is, and what all of them share."""

import enum
from dataclasses import dataclass
from typing import Protocol

from stepgrpo_core.policies.probes import Answer, ProbeSpec

__all__ = ["Boundary", "BoundaryKind", "ExitPolicy", "ExitReason", "Matcher", "Needs", "Verdict"]


class ExitReason(enum.StrEnum):
    """Why the thinking ended: a closed set, used in the API, in metrics and in training logs."""

    NATURAL = "natural"
    """The model closed its thinking itself."""
    CONFIDENT = "confident"
    SUFFICIENT = "sufficient"
    VERIFIED = "verified"
    CONSISTENT = "consistent"
    MARGIN = "margin"
    ENTROPY = "entropy"
    BUDGET = "budget"
    PATTERN = "pattern"
    REPETITION = "repetition"
    EOS_IN_THINKING = "eos_in_thinking"
    """The model ended the completion without closing its thinking."""
    CLIENT = "client"
    """The client left or asked for the answer."""
    LENGTH = "length"
    """The token limit was reached inside the thinking."""
    NONE = "none"
    """There was no thinking, or something else ended it (a stop string)."""


class BoundaryKind(enum.Enum):
    """Where a policy may act, and with it where the cut falls."""

    __hash__ = object.__hash__  # Enum's is slow Python, and sets of kinds are asked per token

    MARKER = "step marker"
    """Before the token in which the marker starts."""
    LINE = "line end"
    """After the newline's token."""
    PARAGRAPH = "paragraph end"
    """After the token of the newline that leaves a line empty."""
    SENTENCE = "sentence end"
    """After the token of the full stop, or of the newline of a line without one."""
    GAP = "paragraph end, long after a marker"
    """As a paragraph end, once `marker_gap` tokens have held no marker. It is no step."""
    ANY = "any token"
    """After any token that completes its characters."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """One place where a policy may act."""

    position: int
    """Generated tokens that an exit here keeps."""
    steps: int
    """Steps completed there."""
    reasoning_tokens: int
    """Of `position`, those after ``<think>``."""
    kind: BoundaryKind = BoundaryKind.MARKER
    generated: int = 0
    """Reasoning tokens generated when the boundary became known: at least `reasoning_tokens`."""
    room: float = 0
    """Tokens that may still be generated with the answer's reserve untouched."""
    text: str = ""
    """Reasoning since the policy's last boundary, for policies that ask nothing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A policy's decision at one boundary; `reason` None goes on thinking."""

    reason: ExitReason | None = None
    confidence: float | None = None
    """In [0, 1], where the policy has something of the kind."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Where a policy acts, and what it needs there."""

    kinds: frozenset[BoundaryKind]
    min_tokens: int = 0
    """Reasoning tokens before the first boundary."""
    probe: ProbeSpec | None = None
    """Put at each boundary; None decides at once, from the generated tokens alone."""
    min_interval: int = 0
    """Reasoning tokens between two questions."""
    max_probes: int | None = None
    """Questions; None: as many as `ExitSettings.max_probes` says."""


class ExitPolicy(Protocol):
    """Decides at boundaries. One instance serves one sequence and may keep state; boundaries are
    put to it in the order of their positions, and a failed probe's is left out."""

    @property
    def needs(self) -> Needs:
        """The same for the whole sequence."""

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Whether to end the thinking at `boundary`; `answer` is the question's, by `ANSWERS`."""


class Matcher(Protocol):
    """A compiled regular expression of a linear-time engine, such as google-re2's."""

    def search(self, text: str, /) -> object:
        """Something true when the expression matches anywhere in `text`."""
