"""What an exit policy is, and what all of them share."""

import enum
import math
from dataclasses import dataclass
from typing import Protocol

from stepgrpo_core.confidence import Mean
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.segmenter import DEFAULT_MARKERS

__all__ = ["Boundary", "ExitPolicy", "ExitReason", "ExitSettings", "Question", "Trial", "Verdict"]


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
    """The client left or asked to finish."""
    LENGTH = "length"
    """The token limit was reached inside the thinking."""
    PROBE_ERROR = "probe_error"
    NONE = "none"
    """There was no thinking, or something else ended it (a stop string)."""


@dataclass(frozen=True, slots=True)
class ExitSettings:
    """How thinking may be ended from outside. Token counts unless said otherwise."""

    policy: str = "none"
    """Name in `POLICIES`."""
    threshold: float = 0.95
    """Exit when the confidence is strictly greater (delta in DEER and Step-GRPO), in [0, 1]."""
    max_probes: int = 10
    """Trial answers per sequence; then the thinking runs free (authors' code: 10)."""
    min_tokens: int = 0
    """Reasoning tokens before the first trial."""
    min_interval: int = 16
    """Reasoning tokens between two trials."""
    shadow: bool = False
    """Decide and record, but change nothing."""
    markers: tuple[str, ...] = DEFAULT_MARKERS
    """Step markers, for stopping and for counting."""
    inducing_prompt: str = "\n**Final Answer**\n\\boxed"
    """Appended inside the thinking to induce a trial answer (authors' code)."""
    probe_max_tokens: int = 20
    """Length of a trial answer (authors' code)."""
    mean: Mean = "geometric"
    """How token probabilities become one confidence."""
    skip_first: bool = True
    """Leave the first token out of the confidence (authors' code)."""
    require_end: bool = True
    """A trial that does not close the thinking has confidence 0 (authors' code, Qwen3)."""
    closing_text: str = "\n</think>\n\n"
    """Injected on exit; the answer is generated after it."""
    answer_reserve: int = 64
    """Tokens of the limit that must be left for the answer, or there is no exit."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:  # also refuses NaN
            raise InvalidSetting("threshold", self.threshold, "use a number from 0 to 1")
        for name in ("max_probes", "min_tokens", "min_interval", "answer_reserve"):
            if getattr(self, name) < 0:
                raise InvalidSetting(name, getattr(self, name), "use 0 or more")
        if self.probe_max_tokens < 1:
            raise InvalidSetting("probe_max_tokens", self.probe_max_tokens, "use 1 or more")


@dataclass(frozen=True, slots=True)
class Question:
    """A trial answer to induce: greedy, at most `max_tokens`, stopping at ``</think>``."""

    text: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Trial:
    """What a probe generated: (T,) token ids with their (T,) log-probabilities."""

    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    ended: bool
    """The trial closed the thinking."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """The end of a step: where a policy may act."""

    position: int
    """Generated tokens before the marker."""
    steps: int
    """Steps completed."""
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A policy's decision at one boundary; `reason` None goes on thinking."""

    reason: ExitReason | None = None
    confidence: float = math.nan


class ExitPolicy(Protocol):
    """Decides at step boundaries. One instance serves one sequence and may keep state;
    boundaries are put to it in the order of their positions."""

    @property
    def question(self) -> Question | None:
        """The trial answer it needs at a boundary; None if it never exits."""

    def decide(self, boundary: Boundary, trial: Trial) -> Verdict:
        """Whether to end the thinking at `boundary`."""
