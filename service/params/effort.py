"""Efforts as bounds: a share of the request's token limit, or a number of tokens."""

from collections.abc import Mapping
from typing import Any

import yaml

__all__ = ["EFFORT", "EFFORTS", "effort_tokens", "read_efforts"]

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Efforts in vLLM's own schema, ascending."""

EFFORT: Mapping[str, int | float | None] = {
    "none": 0,
    "minimal": 0.1,
    "low": 0.2,
    "medium": 0.5,
    "high": 0.8,
    "xhigh": 0.95,
    "max": None,
}
"""Reasoning that each effort allows: a float is a share of the token limit, an int a number of
tokens, None unlimited. The shares are OpenRouter's, where they are of max_tokens too."""


def effort_tokens(worth: float | None, limit: int) -> int | None:
    """Return the reasoning tokens that an entry of the table allows under a token limit."""
    if worth is None or isinstance(worth, int):
        return worth
    return int(worth * limit)


def read_efforts(value: Any) -> Mapping[str, int | float | None]:
    """Return the table with entries replaced, from a mapping or from ``low=0.2,high=4096``.

    Raises ValueError for an entry that is neither a share nor a number of tokens, and for one that
    lets `none` think.
    """
    if isinstance(value, str):
        parts = [part.partition("=") for part in value.split(",")]
        value = {name.strip(): yaml.safe_load(worth) for name, _, worth in parts}
    if not isinstance(value, Mapping):
        raise ValueError("use efforts with their bounds, such as low: 0.2")
    for name, worth in value.items():
        if name not in EFFORTS:
            raise ValueError(f"{name!r} is not an effort; use one of {', '.join(EFFORTS)}")
        _check_worth(name, worth)
    return {**EFFORT, **value}


def _check_worth(name: str, worth: Any) -> None:
    whole = isinstance(worth, int) and not isinstance(worth, bool) and worth >= 0
    share = isinstance(worth, float) and 0 < worth <= 1
    if worth is not None and not whole and not share:
        raise ValueError(
            f"{name}={worth!r} is neither a share of the token limit (above 0.0, to 1.0) nor a "
            "whole number of tokens"
        )
    if name == "none" and worth != 0:
        raise ValueError("'none' switches thinking off and must be 0")
