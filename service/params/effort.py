"""What an effort is worth: a share of the request's token limit, or so many tokens."""

from collections.abc import Mapping
from typing import Any

import yaml

__all__ = ["EFFORT", "EFFORTS", "effort_tokens", "read_efforts"]

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Names that vLLM's own schema knows, ascending."""

EFFORT: Mapping[str, int | float | None] = {
    "none": 0,
    "minimal": 0.1,
    "low": 0.2,
    "medium": 0.5,
    "high": 0.8,
    "xhigh": 0.95,
    "max": None,
}
"""Reasoning an effort allows: a number with a decimal point is a share of the limit, a whole one
counts tokens, None is no bound. The shares are OpenRouter's; there they are of max_tokens, too."""


def effort_tokens(worth: float | None, limit: int) -> int | None:
    """Reasoning tokens that an entry of the table allows under a limit of `limit` tokens."""
    if worth is None or isinstance(worth, int):
        return worth
    return int(worth * limit)


def read_efforts(value: Any) -> Mapping[str, int | float | None]:
    """The table with some entries exchanged, from a mapping or as ``low=0.2,high=4096``.

    Raises ValueError for an entry that is neither a share nor a number of tokens, and for one
    that makes thinking of `none`.
    """
    if isinstance(value, str):
        parts = [part.partition("=") for part in value.split(",")]
        value = {name.strip(): yaml.safe_load(worth) for name, _, worth in parts}
    if not isinstance(value, Mapping):
        raise ValueError("use efforts with what they are worth, such as low: 0.2")
    for name, worth in value.items():
        if name not in EFFORTS:
            raise ValueError(f"{name!r} is no effort; use {', '.join(EFFORTS)}")
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
        raise ValueError("'none' switches thinking off and stays 0; change the others")
