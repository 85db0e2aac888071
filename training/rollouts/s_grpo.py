"""S-GRPO's rollout (arXiv 2505.07686): one full chain per prompt, cut at random positions.

A group of G completions is one whole chain and G - 1 prefixes of its thinking, each with the
closing text and its own answer. Differences from the paper: it makes 8 cuts, here there are G - 1,
and the injected end is the closing text of the settings.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stepgrpo_core import ExitReason, ExitSettings, ThinkingFormat
from stepgrpo_core.control.matching import ThinkTokenMatcher
from stepgrpo_core.control.sequence import splice
from stepgrpo_core.control.states import Signal
from training.rollouts.batch import Format, Rollout, RolloutRequest

__all__ = ["serial_rollouts"]

Run = Callable[[Sequence[RolloutRequest], ExitSettings], list[Rollout]]


def serial_rollouts(
    run: Run, requests: Sequence[RolloutRequest], size: int, form: Format
) -> list[Rollout]:
    """Return `size` completions of each prompt; `requests` repeat each prompt `size` times.

    In each group the cut completions come first, the shortest cut first, then the whole chain.
    """
    firsts, thinking = requests[::size], form.thinking
    chains = run(firsts, ExitSettings())
    cuts = [
        _Cut(request, chain, begin, begin + kept)
        for request, chain in zip(firsts, chains, strict=True)
        for begin in [_begin(chain, form)]
        for kept in _lengths(request, chain, size - 1)
    ]
    answers = run([_answer_request(cut, thinking) for cut in cuts], ExitSettings())
    ended = [_joined(cut, answer, thinking) for cut, answer in zip(cuts, answers, strict=True)]
    return [
        rollout
        for group, chain in enumerate(chains)
        for rollout in (*ended[group * (size - 1) : (group + 1) * (size - 1)], chain)
    ]


@dataclass(frozen=True, slots=True)
class _Cut:
    """A cut of a chain before `position`; its thinking begins at `begin`."""

    request: RolloutRequest
    chain: Rollout
    begin: int
    position: int


def _begin(chain: Rollout, form: Format) -> int:
    """Return the number of tokens that start the thinking; 0 if the prompt did, or none does."""
    if chain.thinking_open:
        return 0
    implied = form.implies_thinking(chain.prompt_ids)
    matcher = ThinkTokenMatcher(form.thinking, implied=implied, may_answer=True)
    texts = form.texts_after(chain.prompt_ids)(chain.ids)
    signals = (matcher.take(*each) for each in zip(chain.ids, texts, strict=True))
    place, signal = next(((at, each) for at, each in enumerate(signals) if each), (0, None))
    return place + 1 if signal is Signal.THINK_START else 0


def _lengths(request: RolloutRequest, chain: Rollout, count: int) -> list[int]:
    """Return `count` numbers of thinking tokens to keep, uniform and ascending; they repeat only
    if the thinking is shorter than `count`."""
    rng = random.Random(f"{request.sampling.seed}:cuts")
    places = range(1, max(chain.outcome.reasoning_tokens, 2))
    if len(places) >= count:
        return sorted(rng.sample(places, count))
    return sorted(rng.choices(places, k=count))


def _answer_request(cut: _Cut, thinking: ThinkingFormat) -> RolloutRequest:
    request, kept = cut.request, (*cut.chain.ids[: cut.position], *thinking.closing_ids)
    left = max(request.sampling.max_tokens - len(kept), 1)
    seed = request.sampling.seed
    sampling = dataclasses.replace(
        request.sampling,
        max_tokens=left,
        seed=None if seed is None else (seed + cut.position) % 2**31,
    )
    return RolloutRequest((*request.prompt_ids, *kept), sampling)


def _joined(cut: _Cut, answer: Rollout, thinking: ThinkingFormat) -> Rollout:
    chain, position, closing = cut.chain, cut.position, thinking.closing_ids
    none, injected = [None] * len(closing), [True] * len(closing)
    thought = position - cut.begin + thinking.thought_in_closing
    return Rollout(
        prompt_ids=chain.prompt_ids,
        ids=tuple(splice(chain.ids, position, closing, answer.ids)),
        logprobs=tuple(splice(chain.logprobs, position, none, answer.logprobs)),
        injected=tuple(splice(chain.injected, position, injected, answer.injected)),
        outcome=dataclasses.replace(
            chain.outcome, reason=ExitReason.BUDGET, reasoning_tokens=thought
        ),
        thinking_open=chain.thinking_open,
        ended=answer.ended,
        probe_tokens=0,
        discarded_tokens=0,  # the chain is itself a completion of the group
    )
