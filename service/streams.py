"""Requests to vLLM's engine as streams of deltas, and surgery on those deltas."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from vllm.engine.protocol import EngineClient
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from service.load import Load
from stepgrpo_core.policies import Answer, Question
from stepgrpo_core.probing import Probe, read_answer
from stepgrpo_core.thinking import Writing

__all__ = [
    "AnswerNow",
    "EngineStream",
    "Inbox",
    "answer_of",
    "answer_params",
    "asked_prompt",
    "extended_prompt",
    "injected_outputs",
    "logprob_of",
    "main_params",
    "probe_params",
    "shallow",
    "split_output",
    "without_stops",
]

Output = TypeVar("Output", RequestOutput, CompletionOutput)

NO_LOGPROB = -9999.0  # what vLLM's chat API puts where it has none

Item: TypeAlias = RequestOutput | Exception | None
Inbox = asyncio.Queue[tuple["EngineStream | AnswerNow", Item]]

DRAIN_SECONDS = 5.0  # for the engine to confirm an abort, before the stream is just dropped


class AnswerNow:
    """In an inbox: the client wants no more thinking."""


class EngineStream:
    """One request to the engine, pumped into an inbox: outputs, then None or the exception.

    The request has an id of its own: vLLM aborts by id, and ids that come from clients repeat.
    """

    def __init__(
        self,
        engine: EngineClient,
        inbox: Inbox,
        *,
        sequence: int,
        request_id: str,
        prompt: Mapping[str, Any],
        params: SamplingParams,
        options: Mapping[str, Any],
        load: Load,
        probe: bool = False,
    ) -> None:
        self.sequence = sequence
        """Index of the sequence it works for."""
        self.generated: dict[int, int] = {}
        """Tokens so far by sequence index, complete after `stop`."""
        self._delta = params.output_kind is RequestOutputKind.DELTA
        self._engine = engine
        self._inbox = inbox
        self.id = f"{request_id}-{uuid.uuid4().hex[:8]}"
        self._started = False
        self._timer: asyncio.TimerHandle | None = None
        self._leave = load.enter(params.n, probe=probe)
        self._task = asyncio.create_task(self._pump(prompt, params, options))
        self._task.add_done_callback(self._ended)

    @property
    def tokens(self) -> int:
        """Generated so far, over all sequences."""
        return sum(self.generated.values())

    def expire_after(self, seconds: float) -> None:
        """Put a TimeoutError into the inbox if it has not ended by then."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._inbox.put_nowait, (self, TimeoutError()))

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._leave()
        if self._timer is not None:
            self._timer.cancel()

    async def _pump(
        self, prompt: Mapping[str, Any], params: SamplingParams, options: Mapping[str, Any]
    ) -> None:
        self._started = True
        end: Exception | None = None
        try:
            async for output in self._engine.generate(prompt, params, self.id, **options):
                self._count(output)
                self._inbox.put_nowait((self, output))
        except Exception as error:  # noqa: BLE001 - carried to the consumer, whatever it is
            end = error
        self._inbox.put_nowait((self, end))

    def _count(self, output: RequestOutput) -> None:
        for completion in output.outputs:
            before = self.generated.get(completion.index, 0) if self._delta else 0
            self.generated[completion.index] = before + len(completion.token_ids)

    async def stop(self) -> None:
        """Abort and wait until every token the engine counted has arrived here."""
        if self._task.done():
            return
        if not self._started:
            self._task.cancel()
        else:
            # By id, not by closing the generator: vLLM then hands over what it had queued.
            await self._engine.abort(self.id)
        done, _ = await asyncio.wait([self._task], timeout=DRAIN_SECONDS)
        if not done:
            self._task.cancel()


def extended_prompt(prompt: Mapping[str, Any], ids: Sequence[int]) -> dict[str, Any]:
    """The engine input with `ids` after it; cache salt and multi-modal parts stay."""
    kept = {k: v for k, v in prompt.items() if k not in ("prompt", "prompt_token_offsets")}
    return kept | {"prompt_token_ids": [*prompt["prompt_token_ids"], *ids]}


def main_params(params: SamplingParams, index: int) -> SamplingParams:
    """Parameters of sequence `index` of a request: deltas, and vLLM's seed per sequence."""
    own = params.clone()
    own.n = 1
    own.output_kind = RequestOutputKind.DELTA
    if own.seed is not None:
        own.seed += index
    return own


def without_stops(params: SamplingParams) -> SamplingParams:
    """The same without stop strings."""
    own = params.clone()
    own.stop = []
    return own


def answer_params(params: SamplingParams, spent: int, *, scored: bool) -> SamplingParams:
    """Parameters of the answer after an exit that has delivered `spent` tokens; `scored` says
    whether its log-probs are to be of the injected tokens, too."""
    own = params.clone()
    if own.max_tokens is not None:
        own.max_tokens -= spent
    own.min_tokens = max(own.min_tokens - spent, 0)
    if own.logprobs is not None and scored:
        own.prompt_logprobs = own.logprobs  # of the injected tokens, which the client sees
        # vLLM decides this at construction; prompt log-probs of cached tokens are garbage, and
        # a garbage token id ends the whole engine.
        own.skip_reading_prefix_cache = True
    return own


def asked_prompt(prompt: Mapping[str, Any], ids: Sequence[int]) -> dict[str, Any]:
    """The engine input of a probe: `ids` in place of the prompt's; its cache salt stays."""
    return extended_prompt({**prompt, "prompt_token_ids": []}, ids)


def probe_params(probe: Probe) -> SamplingParams:
    """A probe is greedy, and its ids and log-probs are all that is read."""
    return SamplingParams(
        temperature=0.0,
        max_tokens=probe.max_tokens,
        logprobs=probe.top,
        stop_token_ids=list(probe.stop_ids),
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def answer_of(
    question: Question, outputs: Sequence[RequestOutput], writing: Writing
) -> Answer | None:
    """The answer in a finished probe's outputs; None when it lacks what was asked for."""
    ids: list[int] = []
    logprobs: list[float | None] = []
    top: Mapping[int, float] = {}
    for output in outputs:
        completion = output.outputs[0]
        entries = completion.logprobs or []
        if entries and not ids:
            top = {token: float(found.logprob) for token, found in entries[0].items()}
        ids += completion.token_ids
        logprobs += [
            logprob_of(entry, token)
            for entry, token in zip(entries, completion.token_ids, strict=False)
        ]
    return read_answer(question, ids, logprobs, top, writing)


def logprob_of(entry: Mapping[int, Any] | None, token: int) -> float | None:
    """The token's log-probability in one position of vLLM's log-probs."""
    found = None if entry is None else entry.get(token)
    return None if found is None else float(found.logprob)


def shallow(output: Output) -> Output:
    """What ``copy.copy`` makes of it, in a tenth of the time: every token of a controlled
    sequence passes here."""
    made = object.__new__(type(output))
    made.__dict__.update(output.__dict__)
    return made


def split_output(
    output: RequestOutput, tokens: int, characters: int
) -> tuple[RequestOutput, RequestOutput]:
    """Cut a delta in two, after its first `tokens` tokens and `characters` characters."""
    head, tail = shallow(output), shallow(output)
    completion = output.outputs[0]
    first, rest = shallow(completion), shallow(completion)
    first.token_ids, rest.token_ids = completion.token_ids[:tokens], completion.token_ids[tokens:]
    first.text, rest.text = completion.text[:characters], completion.text[characters:]
    if completion.logprobs is not None:
        first.logprobs = completion.logprobs[:tokens]
        rest.logprobs = completion.logprobs[tokens:]
    first.finish_reason = first.stop_reason = None
    head.finished = False
    head.outputs, tail.outputs = [first], [rest]
    return head, tail


def injected_outputs(
    like: RequestOutput, ids: Sequence[int], texts: Sequence[str], *, logprobs: bool
) -> list[RequestOutput]:
    """Deltas of tokens that the engine did not generate: one each, as parsers expect them. With
    `logprobs` each has the value that vLLM gives for none."""
    outputs = []
    for token, text in zip(ids, texts, strict=True):
        output = shallow(like)
        output.finished = False
        output.outputs = [
            CompletionOutput(
                index=0,
                text=text,
                token_ids=[token],
                cumulative_logprob=None,
                logprobs=[{token: Logprob(NO_LOGPROB)}] if logprobs else None,
            )
        ]
        outputs.append(output)
    return outputs
