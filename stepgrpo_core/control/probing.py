"""Turns a policy's probe into a prompt, and the generated tokens into an answer.

All drivers use these functions, so a rollout and the server put a probe in the same tokens and
read the same answer from the same completion.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stepgrpo_core.control.events import ThinkingFormat
from stepgrpo_core.policies import (
    Answer,
    Distribution,
    Induce,
    InducedAnswer,
    Judge,
    NextToken,
    ProbeSpec,
    Reply,
)

__all__ = ["Probe", "Writer", "build_probe", "induced_end", "read_answer"]


class Writer(Protocol):
    """The functions of a model's tokenizer that probes use."""

    @property
    def thinking(self) -> ThinkingFormat:
        """The delimiters of thinking."""

    @property
    def encode(self) -> Callable[[str], Sequence[int]]:
        """Encodes a text without special tokens."""

    @property
    def decode(self) -> Callable[[Sequence[int]], str] | None:
        """Decodes ids; None: probes that need text fail."""

    @property
    def chat(self) -> Callable[[str], Sequence[int]] | None:
        """Renders a user message in the chat template for an answer without thinking; None: judge
        probes fail."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A greedy generation beside the main stream."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    top: int
    """Number of most likely tokens whose log-probabilities are needed; 0: the generated one."""
    stop_ids: tuple[int, ...]


def build_probe(
    spec: ProbeSpec, prompt_ids: Sequence[int], kept: Sequence[int], writer: Writer
) -> Probe | None:
    """Return the probe that puts `spec` after the `kept` generated tokens.

    Return None if the model itself cannot answer: for judges behind a URL, and for tokenizers
    without a chat template. A judge sees the whole prompt as the question, because drivers only
    have its ids.
    """
    if isinstance(spec, Judge):
        if spec.url or writer.chat is None or writer.decode is None:
            return None
        message = spec.message(writer.decode(prompt_ids), writer.decode(kept))
        return Probe(tuple(writer.chat(message)), spec.max_tokens, spec.top, ())
    asked = writer.encode(spec.text) if spec.text else ()
    ids = (*prompt_ids, *kept, *asked)
    if isinstance(spec, NextToken):
        return Probe(ids, spec.max_tokens, spec.top, ())
    return Probe(ids, spec.max_tokens, 0, writer.thinking.stop_ids)


def induced_end(
    thinking: ThinkingFormat, ids: Sequence[int], decode: Callable[[Sequence[int]], str] | None
) -> tuple[int, bool]:
    """Return how many tokens a trial has up to and including the end of thinking, and whether it
    reached that end."""
    if not thinking.end_text:
        end = (*thinking.before_end, thinking.end_id)
        return len(ids), tuple(ids[-len(end) :]) == end
    if decode is None:
        return len(ids), False
    mark = thinking.end_text.strip()
    sizes = (size for size in range(1, len(ids) + 1) if mark in decode(ids[:size]))
    size = next(sizes, None)
    return (len(ids), False) if size is None else (size, True)


def read_answer(
    spec: ProbeSpec,
    ids: Sequence[int],
    logprobs: Sequence[float | None],
    top: Mapping[int, float],
    writer: Writer,
) -> Answer | None:
    """Return the answer that a finished probe generated; None if the requested data is missing.

    `ids` and `logprobs` have shape (T,); `top` maps the most likely first tokens to their
    log-probabilities.
    """
    if isinstance(spec, NextToken):
        found = tuple(sorted(top.values(), reverse=True))
        return Distribution(found, top.get(writer.thinking.end_id)) if found else None
    text = writer.decode(ids) if writer.decode else ""
    if isinstance(spec, Induce):
        size, ended = induced_end(writer.thinking, ids, writer.decode)
        text = writer.decode(ids[:size]) if writer.decode and size < len(ids) else text
        return InducedAnswer(tuple(ids[:size]), tuple(logprobs[:size]), ended=ended, text=text)
    assert writer.decode is not None  # `build_probe` has checked it
    first = [(writer.decode([token]), value) for token, value in top.items()]
    return Reply(text, tuple(sorted(first, key=lambda entry: -entry[1])))
