"""What a policy can ask a driver, and what it gets back.

A closed union: a driver that cannot ask one kind answers None, a failed probe. Each question is
put to the model beside the stream, after the prompt and the tokens before the boundary, or in a
conversation of its own (`Judge`).
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
    """A trial answer to induce: greedy, at most `max_tokens`, stopping at ``</think>``."""

    text: str
    """Appended inside the thinking."""
    max_tokens: int


@dataclass(frozen=True, slots=True)
class InducedAnswer:
    """What `Induce` generated: (T,) token ids with their (T,) log-probabilities."""

    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    ended: bool
    """The trial closed the thinking."""
    text: str = ""
    """Of `ids`."""


@dataclass(frozen=True, slots=True)
class NextToken:
    """The distribution of the one token that would follow."""

    text: str
    """Appended first; may be empty."""
    top: int
    """How many of the most likely tokens are wanted."""

    @property
    def max_tokens(self) -> int:
        """One."""
        return 1


@dataclass(frozen=True, slots=True)
class Distribution:
    """The head of a next-token distribution."""

    logprobs: tuple[float, ...]
    """(K,) of the most likely tokens, falling."""
    end: float | None
    """Of ``</think>``; None when it is not among them."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A user message of its own, without thinking, that shows question and reasoning so far."""

    before: str
    between: str
    """Between the user's question and the reasoning."""
    after: str
    max_tokens: int
    top: int = 0
    """Log-probabilities wanted for the most likely first tokens of the reply."""
    url: str | None = None
    """OpenAI-compatible server of another model; None: the served model itself."""
    model: str | None = None
    """The other model's name there; None: the only one."""

    def message(self, question: str, reasoning: str) -> str:
        """The message. Wording and question come first, so that later ones share a prefix."""
        return self.before + question + self.between + reasoning + self.after


@dataclass(frozen=True, slots=True)
class Reply:
    """What the judge said: greedy, at most `max_tokens`."""

    text: str
    first: tuple[tuple[str, float], ...] = ()
    """Text and log-probability of the most likely first tokens; empty if not wanted or known."""


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
