"""A policy's question as a request to the engine, and what comes back as its answer."""

from collections.abc import Sequence

from stepgrpo_core.policies import (
    Answer,
    Distribution,
    Induce,
    Judge,
    NextToken,
    Question,
    Reply,
    Trial,
)
from training.requests import Delta, Format, Request, Sampling

__all__ = ["answer_of", "probe_request"]


def probe_request(
    name: str,
    question: Question,
    prompt_ids: tuple[int, ...],
    kept: tuple[int, ...],
    form: Format,
) -> Request | None:
    """The request that puts `question` after the `kept` generated tokens; None where rollouts
    cannot: judges behind a URL, and tokenizers without a chat template.

    A judge is shown the whole prompt as the question, since rollouts have its ids alone.
    """
    stop: tuple[int, ...] = ()
    top = 0
    if isinstance(question, Judge):
        if question.url or form.chat is None or form.decode is None:
            return None
        message = question.message(form.decode(prompt_ids), form.decode(kept))
        ids, top = tuple(form.chat(message)), question.top
    else:
        ids = (*prompt_ids, *kept, *(form.encode(question.text) if question.text else ()))
        if isinstance(question, NextToken):
            top = question.top
        else:
            stop = (form.thinking.end_id,)
    return Request(name, ids, Sampling(question.max_tokens, 0.0, stop_token_ids=stop, logprobs=top))


def answer_of(question: Question, deltas: Sequence[Delta], form: Format) -> Answer | None:
    """The answer in a probe's deltas; None when it failed or lacks what was asked for."""
    if deltas[-1].cause not in ("eos", "length"):
        return None
    ids = tuple(token for delta in deltas for token in delta.ids)
    top = next((delta.top[0] for delta in deltas if delta.top), {})
    if isinstance(question, NextToken):
        found = tuple(sorted(top.values(), reverse=True))
        return Distribution(found, top.get(form.thinking.end_id)) if found else None
    text = form.decode(ids) if form.decode else ""
    if isinstance(question, Induce):
        logprobs = tuple(value for delta in deltas for value in delta.logprobs)
        return Trial(ids, logprobs, ended=ids[-1:] == (form.thinking.end_id,), text=text)
    assert form.decode is not None  # or it could not have been asked
    first = [(form.decode([token]), value) for token, value in top.items()]
    return Reply(text, tuple(sorted(first, key=lambda entry: -entry[1])))
