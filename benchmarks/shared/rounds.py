"""Rollouts in rounds of ``LLM.generate``, as the published code of Step-GRPO makes them: a peer.

Theory. One call of ``generate`` per round holds what each live sequence needs next: thinking up
to a marker or ``</think>``, a trial answer, or the answer. It returns when its slowest request is
done. A declined trial is followed by thinking in the next round, with the marker restored; a
sequence that closes its thinking itself waits for the next round with its answer; every marker
ends a request, whether a trial follows or not.

Source: `_generate_sequences_deer` in `verl/workers/rollout/vllm_rollout_spmd.py` there. As there:
the rounds and what they hold, markers as stop strings, texts and the two best log-probs of a
trial. As in ours, so that both make the same completions: limits, trials and exits (policy
`confidence`), a seed for every request, the log-probs of sampled tokens, and the model's own
closing kept as it is. In favor of the rounds: nothing is tokenized again, ids are cut instead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm import LLM, SamplingParams

from stepgrpo_core import ExitSettings, answer_confidence
from training.rollouts.batch import Format, RolloutRequest

__all__ = ["Chain", "Chains", "rollouts_in_rounds"]


@dataclass(slots=True)
class Chain:
    """One sequence between rounds."""

    job: RolloutRequest
    phase: str = "think"  # then "trial" and "think" in turns, "answer", "done"
    ids: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    cut: int = 0
    """Tokens before the marker that a trial is put at."""
    trials: int = 0
    last_trial: float = -math.inf
    prompt_tokens: int = 0
    """Of all its requests, cached or not."""
    generated: int = 0
    """By all its requests."""

    @property
    def left(self) -> int:
        """Tokens until the limit."""
        return self.job.sampling.max_tokens - len(self.ids)


def rollouts_in_rounds(
    llm: LLM, jobs: Sequence[RolloutRequest], settings: ExitSettings, form: Format
) -> list[Chain]:
    """Complete every job; the chains in the order of `jobs`."""
    found = [Chain(job) for job in jobs]
    chains = Chains(llm.get_tokenizer(), settings, form)
    while live := [each for each in found if each.phase != "done"]:
        outputs = llm.generate(
            [{"prompt_token_ids": chains.prompt(each)} for each in live],
            [chains.params(each) for each in live],
            use_tqdm=False,
        )
        for chain, output in zip(live, outputs, strict=True):
            chains.take(chain, output)
    return found


@dataclass(frozen=True, slots=True)
class Chains:
    """What a sequence asks next, and what it makes of the outcome."""

    tokenizer: Any
    settings: ExitSettings
    form: Format
    logprobs: bool = True
    """Of sampled tokens; trials have theirs."""

    def prompt(self, chain: Chain) -> list[int]:
        """Ids of the next request."""
        if chain.phase == "trial":
            question = self.form.encode(self.settings.inducing_prompt)
            return [*chain.job.prompt_ids, *chain.ids[: chain.cut], *question]
        return [*chain.job.prompt_ids, *chain.ids]

    def params(self, chain: Chain) -> SamplingParams:
        """Parameters of the next request."""
        if chain.phase == "trial":
            return SamplingParams(
                max_tokens=self.settings.probe_max_tokens,
                temperature=0.0,
                logprobs=1,
                stop_token_ids=[self.form.thinking.end_id],
            )
        sampling, thinks = chain.job.sampling, chain.phase == "think"
        free = not thinks or chain.trials >= self.settings.max_probes
        return SamplingParams(
            max_tokens=chain.left,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=_seed(chain) if thinks else sampling.seed,
            logprobs=0 if self.logprobs else None,
            stop=None if free else list(self.settings.markers),
            stop_token_ids=[self.form.thinking.end_id] if thinks else None,
        )

    def take(self, chain: Chain, request: Any) -> None:
        """Go on after a whole output of vLLM."""
        output = request.outputs[0]
        chain.prompt_tokens += len(request.prompt_token_ids or ())
        chain.generated += len(output.token_ids)
        ids = list(output.token_ids)
        rows = output.logprobs or [None] * len(ids)
        logprobs = [row and row[token].logprob for row, token in zip(rows, ids, strict=True)]
        if chain.phase == "trial":
            self._judge(chain, ids, logprobs)
            return
        start = len(chain.ids)
        chain.ids += ids
        chain.logprobs += logprobs
        if chain.phase == "answer" or chain.left <= 0 or not output.stop_reason:
            chain.phase = "done"
        elif output.stop_reason == self.form.thinking.end_id:
            chain.phase = "answer"
        else:
            chain.cut = start + self._before_marker(ids, output.text)
            chain.phase = "trial" if self._allowed(chain) else "think"

    def _before_marker(self, ids: list[int], text: str) -> int:
        """How many tokens hold nothing of the marker, which vLLM has cut from `text` only."""
        decode = self.tokenizer.decode
        kept = len(ids) - 1
        while kept and not text.startswith(decode(ids[:kept], skip_special_tokens=True)):
            kept -= 1
        return kept

    def _allowed(self, chain: Chain) -> bool:
        """As the exit controller decides it."""
        settings, opened = self.settings, 0 if chain.job.thinking_open else 1
        after = chain.job.sampling.max_tokens - chain.cut - len(self.form.thinking.closing_ids)
        return (
            chain.cut - opened >= max(settings.min_tokens, 1)
            and chain.cut - chain.last_trial >= settings.min_interval
            and after >= settings.answer_reserve
        )

    def _judge(self, chain: Chain, ids: list[int], logprobs: list[float]) -> None:
        chain.trials += 1
        chain.last_trial = chain.cut
        settings, thinking = self.settings, self.form.thinking
        confidence = answer_confidence(logprobs, mean=settings.mean, skip_first=settings.skip_first)
        ended = ids[-1:] == [thinking.end_id] or not settings.require_end
        if not ended or confidence <= settings.threshold:
            chain.phase = "think"
            return
        chain.phase = "answer"
        closing = thinking.closing_ids
        chain.ids[chain.cut :] = closing
        chain.logprobs[chain.cut :] = [None] * len(closing)


def _seed(chain: Chain) -> int | None:
    """Another one for resumed thinking: the same would draw the same numbers again."""
    seed = chain.job.sampling.seed
    return None if seed is None else (seed + 7919 * len(chain.ids)) % 2**31
