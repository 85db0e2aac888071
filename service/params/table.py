"""Table of request parameters: the setting and the type of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from service.params.effort import EFFORTS

__all__ = [
    "CONTAINER",
    "EVENTS",
    "FOREIGN",
    "PARAMETERS",
    "Parameter",
    "read_flag",
]

CONTAINER = "vllm_xargs"
EVENTS = "exit_events"
"""Our parameter in ``vllm_xargs`` that asks for events in the stream; it is no exit setting."""
MOST = 2**63 - 1
"""Largest count: the engine's messages have 64-bit integers."""


def _policy(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("use the name of a policy, or several joined by +")
    return value  # the names are checked by `build_policy`


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("use a text, a regular expression of RE2")
    return value


def _fraction(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("use a number from 0 to 1")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
        raise ValueError("use a whole number, 0 or more, of at most 63 bits")
    return value


def read_flag(value: Any) -> bool:
    """Return a switch of ours; raises ValueError."""
    if isinstance(value, int) and value in (0, 1):  # the schema turns true and false into integers
        return bool(value)
    raise ValueError("use true or false")


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("use true or false")
    return value


def _kind_of_thinking(value: Any) -> bool | None:
    kinds = {"enabled": True, "disabled": False, "adaptive": None}
    if not isinstance(value, str) or value not in kinds:
        raise ValueError("use 'enabled', 'disabled' or 'adaptive'")
    return kinds[value]


def _effort(value: Any) -> str:
    if value not in EFFORTS:
        raise ValueError(f"use one of {', '.join(EFFORTS)}")
    return str(value)


def _budget(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value <= MOST:
        raise ValueError("use a whole number, 0 or more and of at most 63 bits, or -1: no limit")
    return None if value == -1 else value


PARAMETERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "exit_policy": ("policy", _policy),
    "exit_threshold": ("threshold", _fraction),
    "exit_max_probes": ("max_probes", _count),
    "exit_min_tokens": ("min_tokens", _count),
    "exit_min_interval": ("min_interval", _count),
    "exit_shadow": ("shadow", read_flag),
    "exit_budget_tokens": ("budget_tokens", _count),
    "exit_max_steps": ("max_steps", _count),
    "exit_pattern": ("pattern", _text),
}
"""Our parameters in ``vllm_xargs``: the field of ExitSettings, and the reader of its value."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of another ecosystem."""

    path: str
    """Key in the body; after a dot, the key in that object."""
    sets: Literal["switch", "effort", "budget"]
    """The kind of setting: thinking on or off, one of `EFFORTS`, or reasoning tokens."""
    read: Callable[[Any], Any]
    """Return the value; None if it sets nothing, or for a budget no limit. Raises ValueError."""
    ecosystem: str


_TEMPLATES = "vLLM, SGLang, llama.cpp"

FOREIGN: tuple[Parameter, ...] = (
    Parameter("chat_template_kwargs.enable_thinking", "switch", _switch, _TEMPLATES),
    Parameter("chat_template_kwargs.thinking", "switch", _switch, _TEMPLATES),
    Parameter("enable_thinking", "switch", _switch, "DashScope"),
    Parameter("thinking.type", "switch", _kind_of_thinking, "Anthropic"),
    Parameter("reasoning.enabled", "switch", _switch, "OpenRouter"),
    Parameter("reasoning_effort", "effort", _effort, "OpenAI chat, vLLM, SGLang, DashScope"),
    Parameter("reasoning.effort", "effort", _effort, "OpenAI Responses, OpenRouter"),
    Parameter("output_config.effort", "effort", _effort, "Anthropic"),
    Parameter("chat_template_kwargs.reasoning_effort", "effort", _effort, _TEMPLATES),
    Parameter("thinking_token_budget", "budget", _budget, "vLLM"),
    Parameter("custom_params.thinking_budget", "budget", _budget, "SGLang"),
    Parameter("reasoning_budget_tokens", "budget", _budget, "llama.cpp"),
    Parameter("thinking_budget_tokens", "budget", _budget, "llama.cpp"),
    Parameter("nvext.max_thinking_tokens", "budget", _budget, "NIM"),
    Parameter("thinking.budget_tokens", "budget", _budget, "Anthropic"),
    Parameter("reasoning.max_tokens", "budget", _budget, "OpenRouter"),
    Parameter("thinking_budget", "budget", _budget, "DashScope"),
    Parameter("chat_template_kwargs.thinking_budget", "budget", _budget, _TEMPLATES),
)
"""Parameters of other ecosystems, read on every endpoint."""
