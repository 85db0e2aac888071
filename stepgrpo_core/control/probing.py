"""A policy's question as a prompt for the model, and what the model generates as its answer.

Every driver asks through this, so a rollout and the server put a question in the same tokens and
read the same answer from what comes back.
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

__all__ = ["Probe", "Writer", "put_question", "read_answer", "trial_end"]


class Writer(Protocol):
    """How a model's tokenizer writes."""

    @property
    def thinking(self) -> ThinkingFormat:
        """Its tokens of thinking."""

    @property
    def encode(self) -> Callable[[str], Sequence[int]]:
        """Ids of a text, without special tokens."""

    @property
    def decode(self) -> Callable[[Sequence[int]], str] | None:
        """Text of ids; None: policies that read it ask in vain."""

    @property
    def chat(self) -> Callable[[str], Sequence[int]] | None:
        """A user message in the chat template, ready to be answered without thinking; None as
        above."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A greedy generation that answers a question."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    top: int
    """Log-probabilities wanted for the most likely tokens; 0: of the generated one alone."""
    stop_ids: tuple[int, ...]


def put_question(
    question: ProbeSpec, prompt_ids: Sequence[int], kept: Sequence[int], writer: Writer
) -> Probe | None:
    """The probe that puts `question` after the `kept` generated tokens; None where no driver
    can by generating: judges behind a URL, and tokenizers without a chat template.

    A judge is shown the whole prompt as the question, since drivers have its ids alone.
    """
    if isinstance(question, Judge):
        if question.url or writer.chat is None or writer.decode is None:
            return None
        message = question.message(writer.decode(prompt_ids), writer.decode(kept))
        return Probe(tuple(writer.chat(message)), question.max_tokens, question.top, ())
    asked = writer.encode(question.text) if question.text else ()
    ids = (*prompt_ids, *kept, *asked)
    if isinstance(question, NextToken):
        return Probe(ids, question.max_tokens, question.top, ())
    return Probe(ids, question.max_tokens, 0, writer.thinking.stop_ids)


def trial_end(
    thinking: ThinkingFormat, ids: Sequence[int], decode: Callable[[Sequence[int]], str] | None
) -> tuple[int, bool]:
    """Tokens of a trial up to the end of the thinking, and whether it has come to that. Text that
    ends it is in the last of them; of several tokens that do, all are kept."""
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
    question: ProbeSpec,
    ids: Sequence[int],
    logprobs: Sequence[float | None],
    top: Mapping[int, float],
    writer: Writer,
) -> Answer | None:
    """The answer in what a finished probe generated; None when it lacks what was asked for.

    `ids` and `logprobs` are (T,), `top` the log-probabilities of the likeliest first tokens.
    """
    if isinstance(question, NextToken):
        found = tuple(sorted(top.values(), reverse=True))
        return Distribution(found, top.get(writer.thinking.end_id)) if found else None
    text = writer.decode(ids) if writer.decode else ""
    if isinstance(question, Induce):
        size, ended = trial_end(writer.thinking, ids, writer.decode)
        text = writer.decode(ids[:size]) if writer.decode and size < len(ids) else text
        return InducedAnswer(tuple(ids[:size]), tuple(logprobs[:size]), ended=ended, text=text)
    assert writer.decode is not None  # or it could not have been asked
    first = [(writer.decode([token]), value) for token, value in top.items()]
    return Reply(text, tuple(sorted(first, key=lambda entry: -entry[1])))
