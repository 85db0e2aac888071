"""vLLM as a `RolloutEngine`, and a tokenizer as a `Format`."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream
from vllm import SamplingParams
from vllm.inputs.engine import tokens_input

from stepgrpo_core.control.events import Cause
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.families.prompts import turn_header
from stepgrpo_core.families.table import AUTO_FAMILY, FamilyChoice, apply_family
from stepgrpo_core.families.thinking import adapt_family, family_of, thinking_of, tokenizer_format
from stepgrpo_core.policies import ExitSettings
from training.rollouts.types import Delta, Format, Request, Sampling, Texts

__all__ = ["VllmEngine", "format_of", "sampling_params"]


class VllmEngine:
    """The core of an ``LLMEngine`` (``LLM(...).llm_engine``), stepped directly.

    `LLMEngine.step` passes every token through an output processor that counts, detokenizes and
    wraps it, which takes a tenth of a step's time with a small model. Rollouts only need ids and
    log-probabilities, so this class reads them from the core, as `LLMEngine.add_request` and
    `step` do in vLLM 0.31. As there, requests get new ids, because ids repeat between batches.
    """

    def __init__(self, engine: Any) -> None:
        self._inputs, self._core = engine.input_processor, engine.engine_core
        self._tasks = engine.get_supported_tasks()
        self._added = 0
        self._inner: dict[str, str] = {}  # the core's id of a request, by its own
        self._outer: dict[str, str] = {}

    def add(self, request: Request) -> None:
        """Queue a request; prompts that share a prefix share its cache."""
        self._added += 1
        inner = f"{request.id}.{self._added}"
        prompt = tokens_input(list(request.prompt_ids))
        params = sampling_params(request.sampling)
        self._core.add_request(
            self._inputs.process_inputs(inner, prompt, params, supported_tasks=self._tasks)
        )
        self._inner[request.id], self._outer[inner] = inner, request.id

    def abort(self, request_ids: Sequence[str]) -> None:
        """Drop requests from the scheduler."""
        inner = [self._inner.pop(each) for each in request_ids if each in self._inner]
        for each in inner:
            del self._outer[each]
        self._core.abort_requests(inner)

    def step(self) -> list[Delta]:
        """Run one iteration of continuous batching."""
        deltas = []
        for output in self._core.get_output().outputs:
            name = self._outer.get(output.request_id)
            if name is None:
                continue  # aborted
            cause = None if output.finish_reason is None else _cause(str(output.finish_reason))
            if cause:
                del self._inner[name], self._outer[output.request_id]
            ids = tuple(output.new_token_ids)
            deltas.append(Delta(name, ids, _logprobs(output), cause, _top(output)))
        return deltas


def sampling_params(sampling: Sampling) -> SamplingParams:
    """Return vLLM's parameters: with log-probs of the sampled tokens, without text."""
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        stop_token_ids=list(sampling.stop_token_ids),
        logprobs=sampling.logprobs,
        detokenize=False,
    )


def _logprobs(output: Any) -> tuple[float | None, ...]:
    """Return the sampled tokens' log-probs: column 0 of (T, 1 + top); () after an abort."""
    return () if output.new_logprobs is None else tuple(output.new_logprobs.logprobs[:, 0].tolist())


def _top(output: Any) -> tuple[dict[int, float], ...]:
    """Return the log-probs of the most likely tokens at each position, if requested."""
    found = output.new_logprobs
    if found is None or found.logprobs.shape[1] == 1:
        return ()
    rows = zip(found.logprob_token_ids.tolist(), found.logprobs.tolist(), strict=True)
    return tuple(dict(zip(ids, values, strict=True)) for ids, values in rows)


def _cause(finish_reason: str) -> Cause:
    causes: dict[str, Cause] = {"stop": "eos", "length": "length"}
    return causes.get(finish_reason, "abort")


def format_of(tokenizer: Any, closing_text: str, choice: FamilyChoice = AUTO_FAMILY) -> Format:
    """Return the format of a model's tokenizer.

    `closing_text` overrides that of the family unless it is the built-in default. Raises
    InvalidSetting if no family or several match, or if the family's thinking can only be counted.
    """
    row = family_of(tokenizer, choice.name, choice.own)
    if row is None:
        remedy = "how it writes thinking is not known: use a reasoning model's, or name its family "
        remedy += "(model.family and model.families; --exit-family and --exit-config)"
        raise InvalidSetting("tokenizer", tokenizer.name_or_path, remedy)
    family = adapt_family(tokenizer, row)
    settings = apply_family(ExitSettings(closing_text=closing_text), family)
    thinking = thinking_of(tokenizer, family, settings.closing_text)
    if not thinking.closing_ids:
        remedy = f"thinking of family {family.name} can only be counted; use another model's"
        raise InvalidSetting("tokenizer", tokenizer.name_or_path, remedy)
    core, writing = tokenizer.backend_tokenizer, tokenizer_format(tokenizer, thinking)

    def texts_after(prefix: Sequence[int]) -> Texts:
        stream = DecodeStream(ids=list(prefix), skip_special_tokens=True)
        return lambda ids: [stream.step(core, token) or "" for token in ids]

    turn = turn_header(tokenizer, family)
    return Format(thinking, writing.encode, texts_after, writing.decode, writing.chat, family, turn)
