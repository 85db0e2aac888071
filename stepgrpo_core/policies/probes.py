"""Probes that a policy can request from a driver, and their answers.

The union is closed. A driver that does not support a probe answers None, a failed probe. A probe
runs beside the main stream: it continues the prompt and the tokens before the boundary, or is a
separate conversation (`Judge`).
"""

from dataclasses import dataclass

from stepgrpo_core.errors import ProtocolViolation

__all__ = [
    "ANSWERS",
    "Answer",
    "Distribution",
    "Induce",
    "InducedAnswer",
    "Judge",
    "NextToken",
    "ProbeSpec",
    "Reply",
    "check_answer",
]


@dataclass(frozen=True, slots=True)
class Induce:
    """Induce an answer: greedy, at most `max_tokens` tokens, stopped at ``</think>``."""

    text: str
    """Text appended inside the thinking."""
    max_tokens: int


@dataclass(frozen=True, slots=True)
class InducedAnswer:
    """Answer to `Induce`: (T,) token ids with their (T,) log-probabilities."""

    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    ended: bool
    """True if the answer closed the thinking."""
    text: str = ""
    """Decoded `ids`."""


@dataclass(frozen=True, slots=True)
class NextToken:
    """Get the distribution of the next token."""

    text: str
    """Text appended first; may be empty."""
    top: int
    """Number of most likely tokens to return."""

    @property
    def max_tokens(self) -> int:
        """The probe generates one token."""
        return 1


@dataclass(frozen=True, slots=True)
class Distribution:
    """Answer to `NextToken`: the head of the distribution."""

    logprobs: tuple[float, ...]
    """(K,) log-probabilities of the most likely tokens, descending."""
    end: float | None
    """Log-probability of ``</think>``; None if it is not among them."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Ask a judge in a separate conversation, without thinking, about the reasoning so far."""

    before: str
    between: str
    """Text between the user's question and the reasoning."""
    after: str
    max_tokens: int
    top: int = 0
    """Number of most likely first tokens of the reply to return."""
    url: str | None = None
    """URL of an OpenAI-compatible server; None means the served model itself."""
    model: str | None = None
    """Model name on that server; None means its only model."""

    def message(self, question: str, reasoning: str) -> str:
        """Return the user message; the question comes first to share a prefix between messages."""
        return self.before + question + self.between + reasoning + self.after


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to `Judge`: greedy, at most `max_tokens` tokens."""

    text: str
    first: tuple[tuple[str, float], ...] = ()
    """Text and log-probability of the most likely first tokens; empty if not requested or known."""


ProbeSpec = Induce | NextToken | Judge
Answer = InducedAnswer | Distribution | Reply

ANSWERS: dict[type[ProbeSpec], type[Answer]] = {
    Induce: InducedAnswer,
    NextToken: Distribution,
    Judge: Reply,
}
"""Answer type by probe type."""


def check_answer(probe: ProbeSpec, answer: Answer | None) -> None:
    """Raise ProtocolViolation for an answer of another type than the probe's."""
    expected, given = ANSWERS[type(probe)], type(answer)
    if answer is not None and given is not expected:
        raise ProtocolViolation(f"the probe expects {expected.__name__}, not {given.__name__}")
