"""Interfaces of the engine and the tokenizer that rollouts use."""

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
    """Sampling parameters, with vLLM's names."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int = 0
    """Number of most likely tokens to report beside the sampled one."""


@dataclass(frozen=True, slots=True)
class Request:
    """One generation; the end-of-sequence token always stops it."""

    id: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Delta:
    """The tokens that a request generated in a step: (T,) ids with their log-probabilities."""

    id: str
    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    cause: Cause | None = None
    """The reason for its end; None while it runs. After a stop token, the last of `ids`, "eos"."""
    top: tuple[Mapping[int, float], ...] = ()
    """(T,) log-probabilities of the most likely tokens by id, if they were requested."""


class RolloutEngine(Protocol):
    """An engine with continuous batching."""

    def add(self, request: Request) -> None:
        """Queue a request; it runs from the next step on. Raises ValueError if it never can."""

    def abort(self, request_ids: Sequence[str]) -> None:
        """Abort requests; the caller ignores later deltas of them."""

    def step(self) -> Sequence[Delta]:
        """Advance every running request; block until tokens are generated."""


Texts = Callable[[Sequence[int]], list[str]]
"""An incremental decoder: returns one text increment per further id."""


@dataclass(frozen=True, slots=True)
class Format:
    """The delimiters of a model's thinking and the functions of its tokenizer."""

    thinking: ThinkingFormat
    encode: Callable[[str], Sequence[int]]
    texts_after: Callable[[Sequence[int]], Texts]
    """Returns a new incremental decoder that continues after the given ids."""
    decode: Callable[[Sequence[int]], str] | None = None
    """Decodes ids without special tokens; None: probes that need text fail."""
    chat: Callable[[str], Sequence[int]] | None = None
    """Renders a user message in the chat template for an answer without thinking; None: judge
    probes fail."""
    family: Family = FAMILIES["think"]
    """The model's family, whose texts apply if the settings have none."""
    turn: tuple[int, ...] = ()
    """Ids that begin an assistant's message whose thinking has no start; empty: it has one."""

    def implies_thinking(self, prompt_ids: Sequence[int]) -> bool:
        """Return whether thinking follows the prompt even without a start."""
        return bool(self.turn) and ends_with_header(prompt_ids, self.turn)


class RolloutFailed(RuntimeError):
    """vLLM failed while it generated."""
