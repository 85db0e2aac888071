"""Settings of all exit policies, in one flat dataclass."""

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
    """Settings that decide when thinking is ended early.

    Integers are token counts unless the field says otherwise. Brackets list the policies that read
    the field, if not all do.
    """

    policy: str = "none"
    """Name in `POLICIES`, or several joined by +; the first to exit wins."""
    threshold: float = 0.95
    """[confidence] Exit when the confidence, in [0, 1], is strictly greater (delta in DEER and
    Step-GRPO)."""
    max_probes: int = 10
    """[policies with probes] Probes per policy and sequence; after that the thinking continues
    without an exit (authors' code: 10)."""
    min_tokens: int = 0
    """[all but budget] Reasoning tokens before the first exit or probe."""
    min_interval: int = 16
    """[policies with probes] Reasoning tokens between two probes of one policy."""
    probe_share: float | None = None
    """[policies with probes] Limit on the tokens of one policy's probes, each counted at its
    maximum length, per reasoning token so far; None means no limit."""
    probe_backoff: float = 1.0
    """[policies with probes] Factor by which the interval grows after each probe, 1 to 10."""
    shadow: bool = False
    """Decide and record, but never exit."""
    markers: tuple[str, ...] = DEFAULT_MARKERS
    """Step markers, for exits and for counting steps."""
    marker_gap: int | None = 256
    """[confidence, sufficiency] Reasoning tokens without a marker after which a paragraph end is
    used instead, so that thinking without markers can exit too; it does not count as a step. None
    means never (as in the papers)."""
    inducing_prompt: str = "\n**Final Answer**\n\\boxed"
    """[confidence, consistency] Text appended inside the thinking to induce an answer (authors'
    code)."""
    probe_max_tokens: int = 20
    """[confidence, consistency] Maximum length of an induced answer (authors' code)."""
    mean: Mean = "geometric"
    """[confidence] Mean of the token probabilities that gives the confidence."""
    skip_first: bool = True
    """[confidence] Ignore the first token (authors' code)."""
    require_end: bool = True
    """[confidence] Confidence is 0 if the induced answer does not close the thinking (authors'
    code, Qwen3)."""
    closing_text: str = "\n</think>\n\n"
    """Text forced on exit; the answer is generated after it."""
    answer_reserve: int = 64
    """Tokens that must be left for the answer; otherwise no policy exits."""
    close_on_eos: bool = True
    """[all but none] Close the thinking and generate an answer if a completion ends inside its
    thinking; this never counts as a saving."""
    sufficiency_score: int = 100
    """[sufficiency] Exit when the model scores its reasoning, 0 to 100, at least this."""
    verifier_threshold: float = 0.5
    """[verifier] Exit when the probability of yes, in [0, 1], is strictly greater."""
    verifier_url: str | None = None
    """[verifier] URL of an OpenAI-compatible judge; None means the served model itself."""
    verifier_model: str | None = None
    """[verifier] Model name on that server; None means its only model."""
    consistency: ConsistencyLevel = "mid"
    """[consistency] Number of successive induced answers that must agree, and tokens between them:
    mild 8/64, low 5/64, mid 3/64, high 2/64, max 2/32."""
    margin_threshold: float = 1.0
    """[margin] Exit when the most likely token leads ``</think>`` by at most this many nats (the
    paper uses 0.25 for tool use)."""
    entropy_alpha: float = 0.2
    """[entropy] Weight of the newest check in the moving averages; exits need 4/alpha checks."""
    entropy_variance: float = 1e-4
    """[entropy] Exit when the moving variance is below this, in square nats. The default is ours;
    the authors sweep it, so calibrate it."""
    entropy_probes: int | None = None
    """[entropy] Maximum number of checks, in place of `max_probes`; None means `max_probes`. A
    server that sets neither uses 32, because 10 checks are too few for an exit."""
    budget_tokens: int | None = None
    """[budget] Reasoning tokens after which the thinking is closed at the next line end, at most 10
    % later; None means no limit."""
    max_steps: int | None = None
    """[budget] Steps after which the thinking is closed; None means no limit."""
    budget_leaves_answer: bool = True
    """[budget] Close early enough to leave `answer_reserve` tokens for the answer."""
    pattern: str | None = None
    """[pattern] RE2 regular expression, at most 512 characters."""
    repetition_chunks: int = 3
    """[repetition] Successive identical chunks that count as a loop (DEER: 3)."""

    def __post_init__(self) -> None:
        for name, low in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise InvalidSetting(name, value, f"use {low} or more")
        for name, (lowest, highest) in _BETWEEN.items():
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:  # also refuses NaN
                raise InvalidSetting(name, value, f"use a number from {lowest} to {highest}")
