"""The usage of a response as vLLM has it, for comparisons: what probes cost depends on the time."""

from typing import Any

__all__ = ["vllms"]


def vllms(usage: Any) -> dict[str, Any]:
    """Without the block in it; of a client's object or as JSON."""
    found: dict[str, Any] = dict(usage) if isinstance(usage, dict) else usage.model_dump()
    found.pop("stepgrpo", None)
    return found
