"""How many sequences a request asks for, read as vLLM's request schemas read it.

Those are pydantic's in its lax mode: a text of digits, a whole float and a boolean are integers
there. The fields' types are written out here, because this is read before vLLM is loaded; a test
compares them with vLLM's own.
"""

from typing import Annotated, Any

from pydantic import FailFast, TypeAdapter, ValidationError

__all__ = ["count_prompts", "is_token_ids", "read_n"]

_NUMBER = TypeAdapter(int)
_IDS = TypeAdapter(Annotated[list[int], FailFast()])


def read_n(value: Any) -> int:
    """Completions of one prompt, at least 1; 1 also for what a schema would refuse."""
    try:
        return max(_NUMBER.validate_python(value), 1)
    except ValidationError:
        return 1


def count_prompts(body: dict[str, Any]) -> int:
    """Prompts of a body, at least 1: texts, lists of token ids, and embeddings."""
    prompt, embeddings = body.get("prompt"), body.get("prompt_embeds")
    several = (
        len(prompt) if isinstance(prompt, list) and not is_token_ids(prompt) else prompt is not None
    )
    embedded = len(embeddings) if isinstance(embeddings, list) else embeddings is not None
    return max(several + embedded, 1)


def is_token_ids(prompt: Any) -> bool:
    """Whether it is one prompt's token ids, rather than several prompts.

    A list of texts alone is several prompts, also where each text is a number.
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
