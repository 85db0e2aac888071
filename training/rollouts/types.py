"""What rollouts ask of an engine and of a tokenizer, whoever they are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stepgrpo_core import ThinkingFormat
from stepgrpo_core.control.events import Cause
from stepgrpo_core.families.prompts import ends_with_header
from stepgrpo_core.families.table import FAMILIES, Family

__all__ = ["Delta", "Format", "Request", "RolloutEngine", "RolloutFailed", "Sampling", "Texts"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; the names are vLLM's."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int = 0
    """How many of the most likely tokens are reported beside the drawn one."""


@dataclass(frozen=True, slots=True)
class Request:
    """One generation; the end-of-sequence token always stops it."""

    id: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Delta:
    """What a request generated since the last one; (T,) ids with their log-probabilities."""

    id: str
    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    cause: Cause | None = None
    """Why it ended; None while it runs. A stop token is the last of `ids` and means "eos"."""
    top: tuple[Mapping[int, float], ...] = ()
    """(T,) log-probabilities of the most likely tokens by id, where they were asked for."""


class RolloutEngine(Protocol):
    """Continuous batching, as far as rollouts need it."""

    def add(self, request: Request) -> None:
        """Queue a request; it runs from the next step on. ValueError if it never can."""

    def abort(self, request_ids: Sequence[str]) -> None:
        """Forget requests. Deltas of theirs that are on the way are ignored."""

    def step(self) -> Sequence[Delta]:
        """Advance every running request; block until something was generated."""


Texts = Callable[[Sequence[int]], list[str]]
"""The text that each of some further tokens adds: one increment per id."""


@dataclass(frozen=True, slots=True)
class Format:
    """How the model's tokenizer writes."""

    thinking: ThinkingFormat
    encode: Callable[[str], Sequence[int]]
    texts_after: Callable[[Sequence[int]], Texts]
    """A fresh incremental decoder that continues after these ids."""
    decode: Callable[[Sequence[int]], str] | None = None
    """The text of ids, without special tokens; None: policies that read it ask in vain."""
    chat: Callable[[str], Sequence[int]] | None = None
    """A user message in the chat template, ready to be answered without thinking; None as above."""
    family: Family = FAMILIES["think"]
    """Whose texts hold where settings have none of their own."""
    turn: tuple[int, ...] = ()
    """Tokens that begin an assistant's message whose thinking needs no start; empty: it does."""

    def implies_thinking(self, prompt_ids: Sequence[int]) -> bool:
        """Whether what follows a prompt is thinking without a start, too."""
        return bool(self.turn) and ends_with_header(prompt_ids, self.turn)


class RolloutFailed(RuntimeError):
    """vLLM failed while it generated."""
