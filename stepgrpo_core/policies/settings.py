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
    "give_up_tokens": 1,
    "repetition_chunks": 2,
}
_BETWEEN: dict[str, tuple[float, float]] = {
    "threshold": (0, 1),
    "probe_backoff": (1, 10),
    "probe_share": (0, 1),
    "sufficiency_score": (0, 100),
    "verifier_threshold": (0, 1),
    "margin_threshold": (0, 100),
    "give_up_level": (0, 1),
    "entropy_alpha": (0.01, 1),
    "entropy_variance": (0, 100),
}


@dataclass(frozen=True, slots=True)
class ExitSettings:
    """Settings of all exit policies; numbers are token counts unless the text says otherwise.

    Help texts and docs/reference.md are made of these docstrings. Raises InvalidSetting.
    """

    policy: str = "none"
    """Exit policy, or several joined by `+`, of which the first to exit wins."""
    threshold: float = 0.95
    """Policy confidence exits when the confidence of a probe is greater than this, from 0 to 1
    (delta in DEER and Step-GRPO)."""
    max_probes: int = 10
    """Largest number of probes per policy and sequence; after them the thinking runs to its own end
    (authors' code: 10)."""
    min_tokens: int = 0
    """Reasoning tokens before the first exit or probe; policy budget ignores it."""
    min_interval: int = 16
    """Reasoning tokens between two probes of one policy."""
    probe_share: float | None = None
    """Largest number of probe tokens of one policy per reasoning token so far, each probe counted
    at its maximum length. None means no limit."""
    probe_backoff: float = 1.0
    """Factor, from 1 to 10, by which the interval grows from one probe to the next."""
    shadow: bool = False
    """Decide and record exits, but do not perform them."""
    markers: tuple[str, ...] = DEFAULT_MARKERS
    """Step markers, at which policies act and by which steps are counted: a list of texts, or for
    the server the name of a lexicon."""
    marker_gap: int | None = 256
    """After this many reasoning tokens without a marker, policies confidence and sufficiency also
    act at the end of a paragraph, which counts as no step. None means never, as in the papers."""
    inducing_prompt: str = "\n**Final Answer**\n\\boxed"
    """Text that policies confidence and consistency append to the thinking to probe for an answer
    (authors' code). The built-in text gives way to the model family's own."""
    probe_max_tokens: int = 20
    """Largest number of tokens of a probe by policies confidence and consistency (authors'
    code)."""
    mean: Mean = "geometric"
    """Mean by which policy confidence combines the token probabilities of a probe."""
    skip_first: bool = True
    """Policy confidence leaves out the first token of a probe (authors' code)."""
    require_end: bool = True
    """Policy confidence takes 0 for a probe that does not close the thinking (authors' code,
    Qwen3)."""
    closing_text: str = "\n</think>\n\n"
    """Text that an exit injects; the answer is generated after it. The built-in text gives way to
    the model family's own."""
    answer_reserve: int = 64
    """Tokens of the limit that must be left for the answer; with fewer left no policy exits."""
    close_on_eos: bool = True
    """Close the thinking of a completion that ends inside it, and generate the answer; this is
    never a saving. Policy none ignores it."""
    sufficiency_score: int = 100
    """Policy sufficiency exits when the model's own score, from 0 to 100, is at least this."""
    verifier_threshold: float = 0.5
    """Policy verifier exits when the probability of yes is greater than this, from 0 to 1."""
    verifier_url: str | None = None
    """Base URL of an OpenAI-compatible server that judges for policy verifier, such as
    http://judge:8000/v1; its API key comes from STEPGRPO_VERIFIER_API_KEY. None means the served
    model itself."""
    verifier_model: str | None = None
    """Name of the model at verifier_url. None means the only one there."""
    consistency: ConsistencyLevel = "mid"
    """Policy consistency exits after this many equal probes in a row, made every so many tokens:
    mild 8/64, low 5/64, mid 3/64, high 2/64, max 2/32."""
    give_up_tokens: int | None = None
    """Policy give_up exits at a low confidence after about this many reasoning tokens, where its
    threshold is half of give_up_level. None means never: calibrate it."""
    give_up_level: float = 0.5
    """Largest confidence, from 0 to 1, at which policy give_up exits."""
    margin_threshold: float = 1.0
    """Policy margin exits when the most likely token leads the end of the thinking by at most this
    many nats; the paper has 0.25 for tool use."""
    entropy_alpha: float = 0.2
    """Policy entropy gives this weight, from 0.01 to 1, to the newest check in its moving averages;
    it cannot exit before 4/alpha checks."""
    entropy_variance: float = 1e-4
    """Policy entropy exits when the moving variance is below this, in square nats. The value is not
    the paper's, whose authors sweep it: calibrate it."""
    entropy_probes: int | None = None
    """Largest number of checks of policy entropy, in place of max_probes. None means max_probes, or
    32 on a server that sets neither, since 10 are too few for an exit."""
    budget_tokens: int | None = None
    """Policy budget closes the thinking at the next line end after this many reasoning tokens, or
    10 % later. None means no such limit."""
    max_steps: int | None = None
    """Policy budget closes the thinking after this many steps. None means no such limit."""
    budget_leaves_answer: bool = True
    """Policy budget closes the thinking in time to leave answer_reserve of the limit, whatever the
    budget."""
    pattern: str | None = None
    """Policy pattern exits at a line of reasoning that matches this regular expression (RE2, at
    most 512 characters)."""
    repetition_chunks: int = 3
    """Policy repetition exits after this many identical chunks or cycles of tokens in a row (DEER:
    3)."""

    def __post_init__(self) -> None:
        for name, low in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise InvalidSetting(name, value, f"use {low} or more")
        for name, (lowest, highest) in _BETWEEN.items():
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:  # also refuses NaN
                raise InvalidSetting(name, value, f"use a number from {lowest} to {highest}")
