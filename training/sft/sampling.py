"""Sampling for DEER+SFT: TRL's settings from the section `trl`, and vLLM without TRL's trainer."""

from typing import Any

from trl import GRPOConfig
from vllm import LLM

from training.config.schema import RunConfig
from training.rollouts.batch import Sampling
from training.run.upstream_patches import options_for

__all__ = ["grpo_setting", "load_llm", "longest_row", "sampling_of"]


def grpo_setting(config: RunConfig, name: str) -> Any:
    """Return a field of the section `trl`, or TRL's default."""
    return config.trl.get(name, getattr(GRPOConfig, name))


def sampling_of(config: RunConfig) -> Sampling:
    """Return the sampling parameters of completions, without the seed."""
    return Sampling(
        max_tokens=grpo_setting(config, "max_completion_length"),
        temperature=grpo_setting(config, "temperature"),
        top_p=grpo_setting(config, "top_p"),
        top_k=grpo_setting(config, "top_k") or 0,
        min_p=grpo_setting(config, "min_p") or 0.0,
        repetition_penalty=grpo_setting(config, "repetition_penalty"),
    )


def longest_row(config: RunConfig) -> int:
    """Return the number of tokens of the longest prompt and completion together."""
    return config.data.max_prompt_tokens + sampling_of(config).max_tokens


def load_llm(config: RunConfig, model: str, revision: str | None = None) -> LLM:
    """Return a vLLM engine for `model` in this process, with the log-probs that rollouts need."""
    dtype = config.model.dtype if config.trl.get("bf16") is False else "bfloat16"
    return LLM(
        model=model,
        tokenizer_revision=revision,
        trust_remote_code=config.model.trust_remote_code,
        max_model_len=grpo_setting(config, "vllm_max_model_length") or longest_row(config),
        seed=config.seed,
        logprobs_mode="processed_logprobs",
        **options_for(dtype, revision),
    )
