"""S-GRPO's rollout (arXiv 2505.07686): one full chain per prompt, cut at random positions.

A group of G completions is one whole chain and G - 1 prefixes of its thinking, each with the
closing text and its own answer. Differences from the paper: it makes 8 cuts, here there are G - 1,
and the injected end is the closing text of the settings.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence

from stepgrpo_core import ExitReason, ExitSettings, ThinkingFormat
from stepgrpo_core.control.sequence import splice
from training.rollouts.batch import Rollout, RolloutRequest

__all__ = ["serial_rollouts"]

Run = Callable[[Sequence[RolloutRequest], ExitSettings], list[Rollout]]


def serial_rollouts(
    run: Run, jobs: Sequence[RolloutRequest], size: int, thinking: ThinkingFormat
) -> list[Rollout]:
    """Return `size` completions of each prompt, for `jobs` that repeat each prompt `size` times.

    In each group the cut completions come first, the shortest cut first, then the whole chain.
    """
    firsts = jobs[::size]
    chains = run(firsts, ExitSettings())
    cuts = [
        (job, chain, position)
        for job, chain in zip(firsts, chains, strict=True)
        for position in _positions(job, chain, thinking, size - 1)
    ]
    answers = run([_answer_job(*cut, thinking) for cut in cuts], ExitSettings())
    ended = [
        _joined(chain, position, answer, thinking)
        for (_, chain, position), answer in zip(cuts, answers, strict=True)
    ]
    return [
        rollout
        for group, chain in enumerate(chains)
        for rollout in (*ended[group * (size - 1) : (group + 1) * (size - 1)], chain)
    ]


def _positions(
    job: RolloutRequest, chain: Rollout, thinking: ThinkingFormat, count: int
) -> list[int]:
    """Return `count` cuts, uniform over the thinking and ascending; they repeat only if the
    thinking is shorter than `count`."""
    rng = random.Random(f"{job.sampling.seed}:cuts")
    begin = int(
        chain.ids[:1] == (thinking.start_id,)
    )  # otherwise the prompt opened it, or it has no start
    last = begin + max(chain.outcome.reasoning_tokens, 1)
    places = range(begin + 1, max(last, begin + 2))
    if len(places) >= count:
        return sorted(rng.sample(places, count))
    return sorted(rng.choices(places, k=count))


def _answer_job(
    job: RolloutRequest, chain: Rollout, position: int, thinking: ThinkingFormat
) -> RolloutRequest:
    kept = (*chain.ids[:position], *thinking.closing_ids)
    left = max(job.sampling.max_tokens - len(kept), 1)
    seed = job.sampling.seed
    sampling = dataclasses.replace(
        job.sampling, max_tokens=left, seed=None if seed is None else (seed + position) % 2**31
    )
    return RolloutRequest((*job.prompt_ids, *kept), sampling)


def _joined(chain: Rollout, position: int, answer: Rollout, thinking: ThinkingFormat) -> Rollout:
    closing = thinking.closing_ids
    none, injected = [None] * len(closing), [True] * len(closing)
    return Rollout(
        prompt_ids=chain.prompt_ids,
        ids=tuple(splice(chain.ids, position, closing, answer.ids)),
        logprobs=tuple(splice(chain.logprobs, position, none, answer.logprobs)),
        injected=tuple(splice(chain.injected, position, injected, answer.injected)),
        outcome=dataclasses.replace(
            chain.outcome, reason=ExitReason.BUDGET, reasoning_tokens=position
        ),
        thinking_open=chain.thinking_open,
        ended=answer.ended,
        probe_tokens=0,
        discarded_tokens=0,  # the chain is itself a completion of the group
    )
