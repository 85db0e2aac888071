"""vLLM as a `RolloutEngine`, and a tokenizer as a `Format`."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.events import Cause
from stepgrpo_core.thinking import detect_thinking
from training.requests import Delta, Format, Request, Sampling, Texts

__all__ = ["VllmEngine", "format_of", "sampling_params"]


class VllmEngine:
    """The step loop of an ``LLMEngine`` in this process (``LLM(...).llm_engine``)."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def add(self, request: Request) -> None:
        """Queue a request; prompts that share a prefix share its cache."""
        prompt = {"prompt_token_ids": list(request.prompt_ids)}
        self._engine.add_request(request.id, prompt, sampling_params(request.sampling))

    def abort(self, request_ids: Sequence[str]) -> None:
        """Drop requests from the scheduler."""
        self._engine.abort_request(list(request_ids))

    def step(self) -> list[Delta]:
        """One iteration of continuous batching."""
        return [_delta(output) for output in self._engine.step()]


def sampling_params(sampling: Sampling) -> SamplingParams:
    """vLLM's form; the sampled tokens' log-probs come with it, texts do not."""
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
        output_kind=RequestOutputKind.DELTA,
    )


def _delta(output: Any) -> Delta:
    completion = output.outputs[0]
    ids = tuple(completion.token_ids)
    logprobs = tuple(
        entry[token].logprob for entry, token in zip(completion.logprobs, ids, strict=True)
    )
    top = tuple(
        {token: each.logprob for token, each in entry.items()}
        for entry in completion.logprobs
        if len(entry) > 1  # more was asked for than the drawn token's
    )
    return Delta(output.request_id, ids, logprobs, _cause(completion.finish_reason), top)


def _cause(finish_reason: str | None) -> Cause | None:
    causes: dict[str, Cause] = {"stop": "eos", "length": "length"}
    return None if finish_reason is None else causes.get(finish_reason, "abort")


def format_of(tokenizer: Any, closing_text: str) -> Format:
    """How a model's tokenizer writes thinking and text.

    Raises InvalidSetting for a tokenizer without single tokens for ``<think>`` and ``</think>``.
    """
    thinking = detect_thinking(tokenizer, closing_text)
    if thinking is None:
        remedy = "it has no single tokens <think> and </think>; use a reasoning model's"
        raise InvalidSetting("tokenizer", tokenizer.name_or_path, remedy)
    core = tokenizer.backend_tokenizer

    def encode(text: str) -> Sequence[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    def texts_after(prefix: Sequence[int]) -> Texts:
        stream = DecodeStream(ids=list(prefix), skip_special_tokens=True)
        return lambda ids: [stream.step(core, token) or "" for token in ids]

    def decode(ids: Sequence[int]) -> str:
        text: str = tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def chat(message: str) -> Sequence[int]:
        ids: list[int] = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}],
            add_generation_prompt=True,
            return_dict=False,
            enable_thinking=False,  # Qwen3's template closes the thinking; others ignore it
        )
        return ids

    chats = getattr(tokenizer, "chat_template", None) is not None
    return Format(thinking, encode, texts_after, decode, chat if chats else None)
