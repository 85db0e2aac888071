"""The number of sequences that a request asks for, coerced as vLLM's request schemas do.

Those schemas use pydantic's lax mode, where a string of digits, a whole float and a boolean are
valid integers. The types are repeated here to avoid importing vLLM; a test compares them with
vLLM's.
"""

from typing import Annotated, Any

from pydantic import FailFast, TypeAdapter, ValidationError

__all__ = ["count_prompts", "is_token_ids", "read_n"]

_NUMBER = TypeAdapter(int)
_IDS = TypeAdapter(Annotated[list[int], FailFast()])


def read_n(value: Any) -> int:
    """Return the completions per prompt: at least 1, and 1 for a value that the schema refuses."""
    try:
        return max(_NUMBER.validate_python(value), 1)
    except ValidationError:
        return 1


def count_prompts(body: dict[str, Any]) -> int:
    """Return the number of prompts in a body, at least 1: texts, lists of token ids, embeddings."""
    prompt, embeddings = body.get("prompt"), body.get("prompt_embeds")
    prompts = 1 if is_token_ids(prompt) else _length(prompt)
    return max(prompts + _length(embeddings), 1)


def _length(value: Any) -> int:
    """Return the length of a list, 0 for None and 1 for anything else."""
    return len(value) if isinstance(value, list) else int(value is not None)


def is_token_ids(prompt: Any) -> bool:
    """Return whether `prompt` is one list of token ids rather than several prompts.

    A list of strings is always several prompts, even if each string is a number.
    """
    if not isinstance(prompt, list) or not prompt:
        return False
    if isinstance(prompt[0], list) or all(isinstance(each, str) for each in prompt):
        return False
    try:
        _IDS.validate_python(prompt)
    except ValidationError:
        return False
    return True
