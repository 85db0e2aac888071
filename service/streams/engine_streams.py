"""Functions that build the requests of a sequence's streams, and that split and build deltas."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from stepgrpo_core.control.probing import Probe, read_answer
from stepgrpo_core.control.sequence import SequenceState
from stepgrpo_core.families.thinking import TokenizerFormat
from stepgrpo_core.policies import Answer, ProbeSpec

__all__ = [
    "Size",
    "addressed",
    "answer_in",
    "answer_of",
    "answer_params",
    "closing_with_logprobs",
    "extended_prompt",
    "injected_outputs",
    "logprob_of",
    "main_params",
    "pieces",
    "probe_params",
    "probe_prompt",
    "shallow",
    "split_each",
    "split_output",
]

_log = logging.getLogger("vllm.stepgrpo")

Output = TypeVar("Output", RequestOutput, CompletionOutput)

NO_LOGPROB = -9999.0  # vLLM's chat API reports it for a missing log-prob


def extended_prompt(prompt: Mapping[str, Any], ids: Sequence[int]) -> dict[str, Any]:
    """Return the engine input extended by `ids`; cache salt and multi-modal parts stay."""
    kept = {k: v for k, v in prompt.items() if k not in ("prompt", "prompt_token_offsets")}
    return kept | {"prompt_token_ids": [*prompt["prompt_token_ids"], *ids]}


def main_params(params: SamplingParams, index: int) -> SamplingParams:
    """Return the parameters of sequence `index` of a request: n=1, deltas, seed + index."""
    own = params.clone()
    own.n = 1
    own.output_kind = RequestOutputKind.DELTA
    if own.seed is not None:
        own.seed += index
    return own


def answer_params(params: SamplingParams, state: SequenceState, *, scored: bool) -> SamplingParams:
    """Return the parameters of the answer after an exit; with `scored`, log-probs that the client
    asked for are also computed for the injected tokens."""
    own = params.clone()
    own.max_tokens = state.answer_max_tokens
    own.min_tokens = max(own.min_tokens - len(state.prefix_ids), 0)
    if own.logprobs is not None and scored:
        own.prompt_logprobs = own.logprobs  # for the injected tokens, which the client sees
        # vLLM sets this at construction only. Prompt log-probs of cached tokens are invalid, and
        # an invalid token id crashes the engine.
        own.skip_reading_prefix_cache = True
    return own


def probe_prompt(prompt: Mapping[str, Any], ids: Sequence[int]) -> dict[str, Any]:
    """Return the engine input of a probe: the prompt with `ids` in place of its own.

    The cache salt stays. A probe arrives when it is started, while an answer keeps the arrival
    time of its request and so its place in vLLM's queue.
    """
    mine = {k: v for k, v in prompt.items() if k != "arrival_time"}
    return extended_prompt({**mine, "prompt_token_ids": []}, ids)


def probe_params(probe: Probe) -> SamplingParams:
    """Return the parameters of a probe: greedy, with log-probs, without text."""
    return SamplingParams(
        temperature=0.0,
        max_tokens=probe.max_tokens,
        logprobs=probe.top,
        stop_token_ids=list(probe.stop_ids),
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def answer_in(
    spec: ProbeSpec, outputs: Sequence[RequestOutput], writing: TokenizerFormat
) -> Answer | None:
    """Return the answer of a probe that ended; None if it has none or it cannot be read."""
    try:
        if outputs[-1].outputs[0].finish_reason in ("stop", "length"):
            return answer_of(spec, outputs, writing)
    except Exception as error:  # noqa: BLE001 - a failed probe must not fail its request
        _log.warning("The answer of a probe cannot be read: %s", type(error).__name__)
    return None


def pieces(
    output: RequestOutput, texts: Sequence[str], sizes: Sequence[int]
) -> Iterator[tuple[RequestOutput, Sequence[str]]]:
    """Split a delta into parts of so many tokens and the rest; `texts` are those of its tokens."""
    for size in sizes:
        piece, output = split_output(output, size, len("".join(texts[:size])))
        yield piece, texts[:size]
        texts = texts[size:]
    yield output, texts


def answer_of(
    spec: ProbeSpec, outputs: Sequence[RequestOutput], writing: TokenizerFormat
) -> Answer | None:
    """Return the answer in a finished probe's outputs; None if the requested data is missing."""
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
    return read_answer(spec, ids, logprobs, top, writing)


def closing_with_logprobs(
    closing: Sequence[RequestOutput], answer: RequestOutput
) -> Sequence[RequestOutput]:
    """Return the injected closing with the log-probs from the first output of the answer."""
    if closing:
        logprobs = answer.prompt_logprobs
        assert logprobs is not None
        for place, output in enumerate(closing, start=len(logprobs) - len(closing)):
            output.outputs[0].logprobs = logprobs[place : place + 1]
    return closing


def addressed(output: RequestOutput, like: RequestOutput, request_id: str) -> RequestOutput:
    """Return a delta of the answer's stream as one of the client's; `like` is its first."""
    made = shallow(like)
    made.request_id = request_id
    made.finished, made.outputs = output.finished, output.outputs
    return made


def logprob_of(entry: Mapping[int, Any] | None, token: int) -> float | None:
    """Return a token's log-probability from one position of vLLM's log-probs."""
    found = None if entry is None else entry.get(token)
    return None if found is None else float(found.logprob)


def shallow(output: Output) -> Output:
    """Return a shallow copy in a tenth of the time of ``copy.copy``: it runs for every token."""
    made = object.__new__(type(output))
    made.__dict__.update(output.__dict__)
    return made


class Size(NamedTuple):
    """Size of a part of a delta."""

    tokens: int
    characters: int


def split_output(
    output: RequestOutput, tokens: int, characters: int
) -> tuple[RequestOutput, RequestOutput]:
    """Split a delta after its first `tokens` tokens and `characters` characters."""
    head, tail = shallow(output), shallow(output)
    first, rest = _split(output.outputs[0], tokens, characters)
    head.finished = False
    head.outputs, tail.outputs = [first], [rest]
    return head, tail


def split_each(output: RequestOutput, sizes: Sequence[Size | None]) -> list[RequestOutput]:
    """Split a delta of several sequences, each after its size; None leaves a sequence whole."""
    head, tail = shallow(output), shallow(output)
    head.finished, head.outputs, tail.outputs = False, [], []
    for completion, size in zip(output.outputs, sizes, strict=True):
        first, *rest = [completion] if size is None else _split(completion, *size)
        head.outputs.append(first)
        tail.outputs += rest
    return [head, tail]


def _split(
    completion: CompletionOutput, tokens: int, characters: int
) -> tuple[CompletionOutput, CompletionOutput]:
    first, rest = shallow(completion), shallow(completion)
    first.token_ids, rest.token_ids = completion.token_ids[:tokens], completion.token_ids[tokens:]
    first.text, rest.text = completion.text[:characters], completion.text[characters:]
    if completion.logprobs is not None:
        first.logprobs = completion.logprobs[:tokens]
        rest.logprobs = completion.logprobs[tokens:]
    first.finish_reason = first.stop_reason = None
    return first, rest


def injected_outputs(
    like: RequestOutput, ids: Sequence[int], texts: Sequence[str], *, logprobs: bool
) -> list[RequestOutput]:
    """Return deltas for tokens that the engine did not generate, one each, as parsers expect.

    With `logprobs`, each has the value that vLLM reports for a missing log-prob.
    """
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
