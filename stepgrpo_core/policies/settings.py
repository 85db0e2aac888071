"""The settings of every exit policy, in one flat place."""

from dataclasses import dataclass
from typing import Literal

from stepgrpo_core.confidence import Mean
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.segmenter import DEFAULT_MARKERS

__all__ = ["ConsistencyLevel", "ExitSettings"]

ConsistencyLevel = Literal["mild", "low", "mid", "high", "max"]

_AT_LEAST = {
    "max_probes": 0,
    "entropy_probes": 0,
    "min_tokens": 0,
    "min_interval": 0,
    "answer_reserve": 0,
    "probe_max_tokens": 1,
    "budget_tokens": 0,
    "max_steps": 1,
    "marker_gap": 1,
    "repetition_chunks": 2,
}
_BETWEEN: dict[str, tuple[float, float]] = {
    "threshold": (0, 1),
    "probe_backoff": (1, 10),
    "probe_share": (0, 1),
    "sufficiency_score": (0, 100),
    "verifier_threshold": (0, 1),
    "margin_threshold": (0, 100),
    "entropy_alpha": (0.01, 1),
    "entropy_variance": (0, 100),
}


@dataclass(frozen=True, slots=True)
class ExitSettings:
    """How thinking may be ended from outside. Token counts unless said otherwise; the policies
    that read a field are in brackets, where not all do."""

    policy: str = "none"
    """Name in `POLICIES`, or several joined by +: the first to fire wins."""
    threshold: float = 0.95
    """[confidence] Exit when the confidence is strictly greater (delta in DEER and Step-GRPO), in
    [0, 1]."""
    max_probes: int = 10
    """[all that ask] Questions per policy and sequence; then the thinking runs free (authors'
    code: 10)."""
    min_tokens: int = 0
    """[all but budget] Reasoning tokens before the first exit or question."""
    min_interval: int = 16
    """[all that ask] Reasoning tokens between two questions of one policy."""
    probe_share: float | None = None
    """[all that ask] Tokens of one policy's probes, each taken at its longest, per reasoning token
    so far; None: no cap."""
    probe_backoff: float = 1.0
    """[all that ask] Factor by which the interval grows from one question to the next, 1 to 10."""
    shadow: bool = False
    """Decide and record, but change nothing."""
    markers: tuple[str, ...] = DEFAULT_MARKERS
    """Step markers, for stopping and for counting."""
    marker_gap: int | None = 256
    """[confidence, sufficiency] Reasoning tokens without a marker after which the end of a
    paragraph stands in for one, so that a thought without markers can be ended too; it counts as
    no step. None: never (the papers)."""
    inducing_prompt: str = "\n**Final Answer**\n\\boxed"
    """[confidence, consistency] Appended inside the thinking to induce a trial answer (authors'
    code)."""
    probe_max_tokens: int = 20
    """[confidence, consistency] Length of a trial answer (authors' code)."""
    mean: Mean = "geometric"
    """[confidence] How token probabilities become one confidence."""
    skip_first: bool = True
    """[confidence] Leave the first token out (authors' code)."""
    require_end: bool = True
    """[confidence] A trial that does not close the thinking has confidence 0 (authors' code,
    Qwen3)."""
    closing_text: str = "\n</think>\n\n"
    """Injected on exit; the answer is generated after it."""
    answer_reserve: int = 64
    """Tokens of the limit that must be left for the answer, or no policy exits."""
    close_on_eos: bool = True
    """[all but none] A completion that ends inside its thinking is closed and answered; it is
    never a saving."""
    sufficiency_score: int = 100
    """[sufficiency] Exit when the model's own score, 0 to 100, is at least this."""
    verifier_threshold: float = 0.5
    """[verifier] Exit when the probability of yes is strictly greater, in [0, 1]."""
    verifier_url: str | None = None
    """[verifier] OpenAI-compatible server that judges; None: the served model itself."""
    verifier_model: str | None = None
    """[verifier] Name of the model there; None: the only one."""
    consistency: ConsistencyLevel = "mid"
    """[consistency] How many trial answers in a row must agree, and every how many tokens they
    are induced: mild 8/64, low 5/64, mid 3/64, high 2/64, max 2/32."""
    margin_threshold: float = 1.0
    """[margin] Exit when the most likely token leads ``</think>`` by at most this many nats; the
    paper has 0.25 for tool use."""
    entropy_alpha: float = 0.2
    """[entropy] Weight of the newest check in the moving averages; no exit before 4/alpha of
    them."""
    entropy_variance: float = 1e-4
    """[entropy] Exit when the moving variance is below this, in square nats. Ours: the authors
    sweep it, so calibrate it."""
    entropy_probes: int | None = None
    """[entropy] Its checks, in place of `max_probes`; None: as many. On a server that sets neither
    32, for 10 do not suffice for an exit."""
    budget_tokens: int | None = None
    """[budget] Reasoning tokens after which the thinking is closed at the next line end, or 10 %
    later; None: no such limit."""
    max_steps: int | None = None
    """[budget] Steps after which the thinking is closed; None: no such limit."""
    budget_leaves_answer: bool = True
    """[budget] Close in time to leave `answer_reserve` of the limit, whatever the budget."""
    pattern: str | None = None
    """[pattern] Regular expression of RE2, at most 512 characters."""
    repetition_chunks: int = 3
    """[repetition] Identical chunks in a row that make a loop (DEER: 3)."""

    def __post_init__(self) -> None:
        for name, low in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise InvalidSetting(name, value, f"use {low} or more")
        for name, (lowest, highest) in _BETWEEN.items():
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:  # also refuses NaN
                raise InvalidSetting(name, value, f"use a number from {lowest} to {highest}")
