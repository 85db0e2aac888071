"""Refuse values of TRL's fields that would spoil a run, or end it after hours.

These checks need the configuration alone; `training.config.checks` has those of machine and model.
"""

import importlib
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from training.config.layers import Route
from training.config.typed import refused

__all__ = ["check_fine_tuning", "check_grpo", "check_lengths", "steps_per_generation", "trl_class"]

ENGINE_ONLY = "the engine's log-probs would not be the trainer's"
PLAIN_SAMPLING: Mapping[str, Sequence[Any]] = {
    "top_p": (1.0,),
    "top_k": (0, None),
    "min_p": (None, 0.0),
    "repetition_penalty": (1.0,),
}
"""Values that leave the sampled distribution as the trainer computes it, from temperature alone."""
ALLOWED: Mapping[str, tuple[Sequence[Any], str]] = {
    "generation_kwargs": ((None,), "rollouts do not carry them"),
    "vllm_structured_outputs_regex": ((None,), "rollouts do not carry it"),
    "use_transformers_continuous_batching": ((False,), "rollouts run on vLLM"),
    "vllm_enable_sleep_mode": ((False,), "rollouts step the engine themselves"),
}
NO_EVALUATION = "a run has no evaluation data: evaluate its checkpoints by stepgrpo-train eval"
ONE_ENGINE = (
    "ranks that share an engine would have to make equal numbers of calls, which truncated "
    "rollouts do not; use 1, or vllm_mode server for a model that needs several GPUs"
)


def trl_class(name: str) -> Any:
    """Return a class of trl, which takes seconds to import and is imported only here."""
    return getattr(importlib.import_module("trl"), name)


def check_grpo(trl: Mapping[str, Any], *, truncated: bool, longest_prompt: int) -> None:
    """Raise InvalidConfig for invalid values of a GRPO run.

    `longest_prompt` is in tokens; `truncated` tells whether rollouts are.
    """
    values = _with_defaults("GRPOConfig", trl)
    _check_groups(values)
    _check_sampling(values, truncated=truncated)
    _check_saving(values, ("trl",), steps_per_generation(values))
    check_lengths(trl, longest_prompt)


def check_fine_tuning(trl: Mapping[str, Any]) -> None:
    """Raise InvalidConfig for invalid values of a fine-tuning."""
    _check_saving(_with_defaults("SFTConfig", trl), ("sft", "trl"), 1)


def check_lengths(trl: Mapping[str, Any], longest_prompt: int) -> None:
    """Raise InvalidConfig if the longest prompt and completion exceed the engine's context."""
    completion = _with_defaults("GRPOConfig", trl).max_completion_length
    if completion is None or completion < 1:
        raise refused(("trl", "max_completion_length"), completion, "use 1 or more tokens")
    given, needed = trl.get("vllm_max_model_length"), longest_prompt + completion
    if given is not None and given < needed:
        remedy = (
            f"data.max_prompt_tokens={longest_prompt} and trl.max_completion_length={completion} "
            f"need {needed} or more, with room for probes; null takes the model's own"
        )
        raise refused(("trl", "vllm_max_model_length"), given, remedy)


def steps_per_generation(values: Any) -> int:
    """Return the optimizer steps, at least one, per generation of completions."""
    micro_batches = values.steps_per_generation or values.gradient_accumulation_steps
    steps = micro_batches * values.num_iterations // values.gradient_accumulation_steps
    return max(int(steps), 1)


def _with_defaults(name: str, given: Mapping[str, Any]) -> SimpleNamespace:
    """Return the fields of TRL's class `name` with the given values over its defaults."""
    fields = trl_class(name).__dataclass_fields__
    return SimpleNamespace(**{key: each.default for key, each in fields.items()} | dict(given))


def _check_groups(values: Any) -> None:
    """Raise InvalidConfig if a process would hold parts of groups: rewards compare whole ones."""
    batches = values.steps_per_generation or values.gradient_accumulation_steps
    completions, group = values.per_device_train_batch_size * batches, values.num_generations
    if not group or group < 2 or completions % group:
        remedy = (
            f"a process generates {completions} completions at a time (per_device_train_batch_size "
            "times steps_per_generation); use a divisor of that, 2 or more"
        )
        raise refused(("trl", "num_generations"), group, remedy)


def _check_sampling(values: Any, *, truncated: bool) -> None:
    for name, (allowed, reason) in ALLOWED.items():
        _allow(values, name, allowed, f"{reason}; leave {allowed[0]!r}")
    if values.vllm_mode == "colocate":
        _allow(values, "vllm_tensor_parallel_size", (1,), ONE_ENGINE)
    if not values.vllm_importance_sampling_correction:
        return
    for name, allowed in PLAIN_SAMPLING.items():
        _allow(values, name, allowed, f"{ENGINE_ONLY}; leave {allowed[0]!r}")
    mode = vars(values).get("vllm_importance_sampling_mode")
    if truncated and mode not in ("token_truncate", "token_mask"):
        remedy = "it zeroes whole completions for their injected tokens; use token_truncate"
        raise refused(("trl", "vllm_importance_sampling_mode"), mode, remedy)


def _check_saving(values: Any, route: Route, steps: int) -> None:
    """Raise InvalidConfig for checkpoints within a generation, from which no run can resume."""
    _allow(values, "eval_strategy", ("no",), NO_EVALUATION, route)
    _allow(values, "eval_on_start", (False,), NO_EVALUATION, route)
    if values.save_strategy == "steps" and values.save_steps % steps:
        remedy = f"a resumed run must begin with a generation; use a multiple of {steps}"
        raise refused((*route, "save_steps"), values.save_steps, remedy)
    if values.save_strategy not in ("steps", "no") and steps > 1:
        remedy = (
            "it may fall within a generation, where no run can be resumed; use steps, with a "
            f"save_steps that is a multiple of {steps}"
        )
        raise refused((*route, "save_strategy"), values.save_strategy, remedy)
    if values.save_total_limit is not None and values.save_total_limit < 2:
        remedy = "the last good checkpoint must outlive the writing of the next; use 2 or more"
        raise refused((*route, "save_total_limit"), values.save_total_limit, remedy)


def _allow(
    values: Any, name: str, allowed: Sequence[Any], remedy: str, route: Route = ("trl",)
) -> None:
    value = getattr(values, name)
    if value not in allowed:
        raise refused((*route, name), value, remedy)
