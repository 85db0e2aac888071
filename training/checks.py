"""What must hold before a run may start. Each check would otherwise cost hours or spoil the
importance ratios without a word."""

from collections.abc import Sequence
from typing import Any

from stepgrpo_core.errors import InvalidSetting
from training.config import InvalidConfig, RunConfig
from training.rollout import Format

__all__ = ["check_arguments", "check_tokenizer", "marker_lines"]


def check_arguments(config: RunConfig, args: Any) -> None:
    """`args` is the run's ``GRPOConfig``. Raises InvalidConfig with key, value and remedy."""
    plain_sampling = {"top_p": (1.0,), "top_k": (0, None), "min_p": (None, 0.0)}
    if args.vllm_importance_sampling_correction:
        for name, allowed in plain_sampling.items():
            _allow(args, name, allowed, "the engine's log-probs would not be the trainer's")
    _allow(args, "generation_kwargs", (None,), "rollouts do not carry them")
    _allow(args, "use_transformers_continuous_batching", (False,), "rollouts run on vLLM")
    _allow(args, "vllm_enable_sleep_mode", (False,), "rollouts step the engine themselves")
    if args.vllm_mode == "colocate":
        remedy = (
            "ranks that share an engine would have to make equal numbers of calls, which truncated "
            "rollouts do not; use 1, or vllm_mode server for a model that needs several GPUs"
        )
        _allow(args, "vllm_tensor_parallel_size", (1,), remedy)
    if config.rollout.kind == "truncated":
        remedy = "it zeroes whole completions for their injected tokens; use token_truncate"
        if args.vllm_importance_sampling_correction:
            _allow(args, "vllm_importance_sampling_mode", ("token_truncate", "token_mask"), remedy)
    _check_saving(args)


def _check_saving(args: Any) -> None:
    steps = args.steps_per_generation * args.num_iterations // args.gradient_accumulation_steps
    if args.save_strategy == "steps" and args.save_steps % max(steps, 1):
        remedy = f"a resumed run must begin with a generation; use a multiple of {steps}"
        raise _refused("save_steps", args.save_steps, remedy)
    if args.save_total_limit is not None and args.save_total_limit < 2:
        remedy = "the last good checkpoint must outlive the writing of the next; use 2 or more"
        raise _refused("save_total_limit", args.save_total_limit, remedy)


def _allow(args: Any, name: str, allowed: Sequence[Any], reason: str) -> None:
    value = getattr(args, name)
    if value not in allowed:
        raise _refused(name, value, f"{reason}; leave {allowed[0]!r}")


def _refused(name: str, value: object, remedy: str) -> InvalidConfig:
    return InvalidConfig(f"={value!r} cannot be honoured: {remedy}", ("trl", name))


def check_tokenizer(tokenizer: Any, form: Format, markers: Sequence[str]) -> None:
    """Raises InvalidSetting if ids and text of a marker or of the closing would disagree."""
    for marker in markers:
        for text in (marker, f" {marker}"):
            back = tokenizer.decode(form.encode(text))
            if back != text:
                remedy = f"{text!r} becomes {back!r} in this model's tokens; leave the marker out"
                raise InvalidSetting("rollout.exit.markers", marker, remedy)
    if tokenizer.eos_token_id is None:
        raise InvalidSetting("tokenizer", tokenizer.name_or_path, "it has no end-of-sequence token")


def marker_lines(form: Format, markers: Sequence[str]) -> list[str]:
    """How each marker is tokenised, at the start of a line and within one."""
    return [
        f"{marker!r}: {_count(form, marker)}, after a space {_count(form, ' ' + marker)}"
        for marker in markers
        if not marker.startswith("!")  # an exception
    ]


def _count(form: Format, text: str) -> str:
    ids = form.encode(text)
    return f"{len(ids)} token{'s' * (len(ids) > 1)} {list(ids)}"
