"""What an effort is worth: a share of the request's token limit, or so many tokens."""

from collections.abc import Mapping

__all__ = ["EFFORT", "EFFORTS", "effort_tokens"]

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
