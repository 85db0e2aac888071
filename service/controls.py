"""Request parameters to one effective exit policy.

Our parameters travel in vLLM's official ``vllm_xargs``. vLLM lets a misspelt or misplaced
parameter pass silently; here it is an error that names the right one.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from service.patterns import matcher_of
from stepgrpo_core import ExitSettings, InvalidSetting, build_policy

__all__ = ["PARAMETERS", "BadParameter", "effective_settings", "misplaced_parameter"]

CONTAINER = "vllm_xargs"


class BadParameter(ValueError):
    """A request parameter that cannot be honoured; becomes HTTP 400 in OpenAI's shape."""

    def __init__(self, parameter: str, value: object, remedy: str) -> None:
        super().__init__(f"{parameter}={value!r} cannot be honoured: {remedy}")
        self.parameter = parameter
        self.value = value


def _policy(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("use the name of a policy, or several joined by +")
    return value  # names are checked when the policies are built


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("use a text")
    return value


def _fraction(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("use a number from 0 to 1")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("use a whole number, 0 or more")
    return value


def _flag(value: Any) -> bool:
    if value in (True, False):  # 1 and 0 too
        return bool(value)
    raise ValueError("use true or false")


PARAMETERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "exit_policy": ("policy", _policy),
    "exit_threshold": ("threshold", _fraction),
    "exit_max_probes": ("max_probes", _count),
    "exit_min_tokens": ("min_tokens", _count),
    "exit_min_interval": ("min_interval", _count),
    "exit_shadow": ("shadow", _flag),
    "exit_budget_tokens": ("budget_tokens", _count),
    "exit_max_steps": ("max_steps", _count),
    "exit_pattern": ("pattern", _text),
}
"""Request parameter: the field of ExitSettings it sets, and how its value is read."""

READ_BY = {"exit_budget_tokens": "budget", "exit_max_steps": "budget", "exit_pattern": "pattern"}
"""Of those, the ones that one policy alone reads."""


def effective_settings(xargs: Mapping[str, Any] | None, defaults: ExitSettings) -> ExitSettings:
    """The server's `defaults` with a request's ``vllm_xargs`` over them.

    Raises BadParameter for an unknown parameter of ours or a value that cannot be honoured.
    Arguments that are not ours (other plug-ins use ``vllm_xargs`` too) are left alone.
    """
    changes: dict[str, Any] = {}
    for name, value in (xargs or {}).items():
        if name in PARAMETERS:
            field, read = PARAMETERS[name]
            changes[field] = _read(name, value, read)
        elif near := _near(name):
            raise BadParameter(f"{CONTAINER}.{name}", value, f"did you mean {near!r}?")
    try:
        settings = dataclasses.replace(defaults, **changes)
        if changes:
            build_policy(settings, matcher_of(settings))
    except InvalidSetting as error:
        raise BadParameter(f"{CONTAINER}.exit_{error.name}", error.value, error.remedy) from error
    for name, reader in READ_BY.items():
        if name in (xargs or {}) and reader not in settings.policy.split("+"):
            joined = reader if settings.policy == "none" else f"{settings.policy}+{reader}"
            remedy = f"only policy {reader} reads it: add exit_policy={joined!r}"
            raise BadParameter(f"{CONTAINER}.{name}", changes[PARAMETERS[name][0]], remedy)
    return settings


def misplaced_parameter(body: Mapping[str, Any]) -> BadParameter | None:
    """The first top-level key of a request body that is meant for ``vllm_xargs``, as an error."""
    for name, value in body.items():
        if near := (name if name in PARAMETERS else _near(name)):
            remedy = f"pass it as {{{CONTAINER!r}: {{{near!r}: ...}}}}"
            return BadParameter(name, value, remedy)
        if "xarg" in name and name != CONTAINER:
            return BadParameter(name, value, f"did you mean {CONTAINER!r}?")
    return None


def _read(name: str, value: Any, read: Callable[[Any], Any]) -> Any:
    try:
        return read(value)
    except (ValueError, TypeError) as error:
        raise BadParameter(f"{CONTAINER}.{name}", value, str(error)) from error


def _near(name: str) -> str | None:
    """Our parameter that `name` was probably meant to be, if it is not one."""
    if "exit" not in name.lower():
        return None
    return next(iter(difflib.get_close_matches(name, PARAMETERS, n=1, cutoff=0.0)), None)
