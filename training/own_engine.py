"""vLLM beside fine-tuning: its settings from the section `trl`, its memory given back for sure.

It lives in a process of its own; when that ends, so does its hold on the device. In the trainer's
process some memory would stay behind.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any

from trl import GRPOConfig
from vllm import LLM

from training.config import RunConfig
from training.rollout import Sampling
from training.upstream import options_for

__all__ = ["EndsWithParent", "grpo_setting", "longest_row", "own_engine", "sampling_of"]


def grpo_setting(config: RunConfig, name: str) -> Any:
    """A field of the section `trl`, which gives the sampling's settings, or TRL's default."""
    return config.trl.get(name, getattr(GRPOConfig, name))


def sampling_of(config: RunConfig) -> Sampling:
    """How completions are drawn, but for the seed."""
    return Sampling(
        max_tokens=grpo_setting(config, "max_completion_length"),
        temperature=grpo_setting(config, "temperature"),
        top_p=grpo_setting(config, "top_p"),
        top_k=grpo_setting(config, "top_k") or 0,
        min_p=grpo_setting(config, "min_p") or 0.0,
        repetition_penalty=grpo_setting(config, "repetition_penalty"),
    )


def longest_row(config: RunConfig) -> int:
    """Tokens of the longest prompt with the longest completion."""
    return config.data.max_prompt_tokens + sampling_of(config).max_tokens


@contextlib.contextmanager
def own_engine(config: RunConfig, model: str, revision: str | None = None) -> Iterator[LLM]:
    """vLLM for `model` with the run's sampling settings; it is gone when the block ends."""
    dtype = config.model.dtype if config.trl.get("bf16") is False else "bfloat16"
    with _environment(_surroundings(os.environ)):
        llm = LLM(
            model=model,
            tokenizer_revision=revision,
            trust_remote_code=config.model.trust_remote_code,
            max_model_len=grpo_setting(config, "vllm_max_model_length") or longest_row(config),
            seed=config.seed,
            logprobs_mode="processed_logprobs",
            distributed_executor_backend="uni",
            worker_extension_cls=f"{EndsWithParent.__module__}.{EndsWithParent.__qualname__}",
            **options_for(dtype, revision),
        )
    try:
        llm.collective_rpc("end_with_parent")
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown(timeout=20)  # killed early, it leaves shared memory


class EndsWithParent:
    """Added to vLLM's worker, so that a run that was killed leaves no engine on the device."""

    def end_with_parent(self) -> None:
        """From now on the kernel kills this process when its parent is gone."""
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _surroundings(environment: Mapping[str, str]) -> dict[str, str]:
    """What the engine's process must see: one device, that of this process."""
    wanted = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # CUDA and threads do not survive a fork
    }
    if rank := environment.get("LOCAL_RANK"):
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        wanted["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(rank)] if visible else rank
    return wanted


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
