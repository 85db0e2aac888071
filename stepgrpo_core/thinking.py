"""How a tokenizer writes thinking, and whether a prompt has opened it.

Tokenizers are duck-typed: `encode`, `decode` and `backend_tokenizer.token_to_id`, as every fast
tokenizer of transformers has them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from stepgrpo_core.answers import THINK_START
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.events import ThinkingFormat
from stepgrpo_core.families import FAMILIES, Family, recognise

__all__ = [
    "SWITCHES",
    "Writing",
    "continues_thinking",
    "efforts_of",
    "family_of",
    "nearest_efforts",
    "opens_in_thinking",
    "special_ids",
    "switches_of",
    "thinking_of",
    "writing_of",
]


TOOL_STARTS = (
    "<tool_call>",  # Qwen3, GLM
    "<|tool_calls_section_begin|>",  # Kimi
    "<|tool_call_begin|>",
    "<｜tool▁calls▁begin｜>",  # DeepSeek
    "<｜tool▁call▁begin｜>",
    "<minimax:tool_call>",
    "[TOOL_CALLS]",  # Mistral
)
"""What opens a tool call, where a tokenizer has it as one token."""


@dataclass(frozen=True, slots=True)
class Writing:
    """How a tokenizer writes; a `stepgrpo_core.probing.Writer`."""

    thinking: ThinkingFormat
    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str] | None
    chat: Callable[[str], Sequence[int]] | None


def writing_of(tokenizer: Any, thinking: ThinkingFormat) -> Writing:
    """The tokenizer's own functions; no `chat` without a chat template."""

    @lru_cache(maxsize=16)  # every probe asks the same
    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    def decode(ids: Sequence[int]) -> str:
        text: str = tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def chat(message: str) -> Sequence[int]:
        ids: list[int] = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}],
            add_generation_prompt=True,
            return_dict=False,
            enable_thinking=False,  # Qwen3's template closes the thinking; others ignore it
        )
        return ids

    chats = getattr(tokenizer, "chat_template", None) is not None
    return Writing(thinking, encode, decode, chat if chats else None)


def family_of(
    tokenizer: Any, name: str | None = None, own: Mapping[str, Family] = MappingProxyType({})
) -> Family | None:
    """The family of `name`, of the user's `own` or the built-in ones, or else the one that this
    tokenizer is recognised by; None if it is of none, or no fast one.

    Raises InvalidSetting for a name that is unknown, or that this tokenizer cannot write, and
    when several families fit.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return None
    if name is None:
        return recognise(
            lambda token: fast.token_to_id(token) is not None,
            lambda family: _marks(tokenizer, family) is not None,
            lambda: _opens(tokenizer),
            own,
        )
    known = {**FAMILIES, **own}
    if name not in known:
        raise InvalidSetting("family", name, f"use one of {', '.join(known)}")
    if _marks(tokenizer, known[name]) is None:
        family = known[name]
        remedy = f"this tokenizer cannot write {family.start} and {family.end} in tokens of its own"
        raise InvalidSetting("family", name, remedy)
    return known[name]


def thinking_of(tokenizer: Any, family: Family, closing_text: str) -> ThinkingFormat:
    """How a tokenizer writes the thinking of a family that it is of.

    Raises InvalidSetting when `closing_text` does not close the thinking, or does not survive
    encoding and decoding: then ids and text would disagree in every completion.
    """
    marks = _marks(tokenizer, family)
    assert marks is not None
    (*before_start, start), (*before_end, end) = marks
    if not family.exits or before_end:  # the tokens of an end in several may be cut apart
        return ThinkingFormat(start, end, (), tuple(before_start), tuple(before_end))
    closing = tuple(tokenizer.encode(closing_text, add_special_tokens=False))
    text = tokenizer.decode(closing, skip_special_tokens=False)
    if end not in closing or text != closing_text:
        raise InvalidSetting(
            "closing_text",
            closing_text,
            f"it becomes {text!r} in this model's tokens; it must hold {family.end} and survive "
            "encoding",
        )
    found = (tokenizer.backend_tokenizer.token_to_id(each) for each in TOOL_STARTS)
    tools = frozenset(each for each in found if each is not None)
    return ThinkingFormat(start, end, closing, tuple(before_start), tool_ids=tools)


def _marks(tokenizer: Any, family: Family) -> tuple[Sequence[int], Sequence[int]] | None:
    """The ids of start and end; None where the tokenizer has no tokens for one of them."""
    start, end = _ids_of(tokenizer, family.start), _ids_of(tokenizer, family.end)
    return None if start is None or end is None else (start, end)


def _ids_of(tokenizer: Any, mark: str) -> Sequence[int] | None:
    """One id, or several from an added token to an added one, so that none of them merges with
    the text around them; None where that cannot be."""
    fast = tokenizer.backend_tokenizer
    one = fast.token_to_id(mark)
    if one is not None:
        return (one,)
    added = [token.content for token in fast.get_added_tokens_decoder().values()]
    if not any(map(mark.startswith, added)) or not any(map(mark.endswith, added)):
        return None
    ids: Sequence[int] = tokenizer.encode(mark, add_special_tokens=False)
    return ids if tokenizer.decode(ids, skip_special_tokens=False) == mark else None


def _opens(tokenizer: Any) -> bool | None:
    """Whether the chat template ends prompts in an opened thinking; None without one."""
    if getattr(tokenizer, "chat_template", None) is None:
        return None
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, tokenize=False
    )
    return text.rstrip().endswith(THINK_START)


def opens_in_thinking(tokenizer: Any, thinking: ThinkingFormat, prompt_ids: Sequence[int]) -> bool:
    """Whether the prompt ends in the start of thinking, with nothing but white space after it.

    Only the end counts: the chat template wrote it. The start anywhere else is text.
    """
    tail: list[int] = []
    for place in range(len(prompt_ids) - 1, max(len(prompt_ids) - 9, -1), -1):
        if _starts_at(thinking, prompt_ids, place):
            return not tokenizer.decode(tail[::-1]).strip()
        tail.append(prompt_ids[place])
    return False


def _starts_at(thinking: ThinkingFormat, ids: Sequence[int], place: int) -> bool:
    """Whether the token at `place` completes the start of thinking."""
    if ids[place] != thinking.start_id:
        return False
    before = thinking.before_start
    return tuple(ids[max(place - len(before), 0) : place]) == before


SWITCHES = ("enable_thinking", "thinking")
"""Variables with which chat templates switch thinking: Qwen3 and GLM, DeepSeek V3.1 and Kimi."""


def switches_of(tokenizer: Any, chat_template: str | None = None) -> tuple[str, ...]:
    """Those of `SWITCHES` that make a difference to the tokenizer's chat template, or to
    `chat_template` in its place; none without a template."""

    def written(**variables: bool) -> str:
        return _prompt(tokenizer, chat_template, **variables)

    if chat_template is None and getattr(tokenizer, "chat_template", None) is None:
        return ()
    return tuple(name for name in SWITCHES if written(**{name: False}) != written(**{name: True}))


def _prompt(tokenizer: Any, chat_template: str | None, **variables: Any) -> str:
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}],
        chat_template=chat_template,
        add_generation_prompt=True,
        tokenize=False,
        **variables,
    )
    return text


NO_EFFORT = "as-much-as-you-like"
"""A name that no template knows for an effort."""


def efforts_of(
    tokenizer: Any,
    names: Sequence[str],
    chat_template: str | None = None,
    switches: Sequence[str] = (),
) -> dict[str, str | None]:
    """The `names` of efforts, ascending, that the tokenizer's chat template (or `chat_template` in
    its place) does not know, each with the nearest that it knows.

    A template that takes a name which is none takes any: what it does not know gets None, to be
    left out. Empty also where it looks at no effort at all. `switches` switch its thinking on, for
    some look at efforts only then.
    """
    if chat_template is None and getattr(tokenizer, "chat_template", None) is None:
        return {}

    def written(effort: str) -> str | None:
        variables = dict.fromkeys(switches, True) | {"reasoning_effort": effort}
        try:
            return _prompt(tokenizer, chat_template, **variables)
        except Exception:  # noqa: BLE001 - a template refuses with errors of its own
            return None

    of_none = written(NO_EFFORT)
    known = [name for name in names if written(name) not in (None, of_none)]
    if of_none is None:
        return nearest_efforts(names, known)
    return {name: None for name in names if name not in known} if known else {}


def nearest_efforts(names: Sequence[str], known: Sequence[str]) -> dict[str, str | None]:
    """The `names` of efforts, ascending, that are not `known`, each with the nearest that is; of
    two that are as near the higher, for a budget bounds it."""

    def nearest(name: str) -> str | None:
        place = names.index(name)
        by_distance = sorted((abs(names.index(each) - place), -names.index(each)) for each in known)
        return names[-by_distance[0][1]] if by_distance else None

    return {name: nearest(name) for name in names if name not in known}


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the tokens that stand between messages, and never in text."""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return frozenset(token for token, written in added.items() if written.special)


def continues_thinking(
    tokenizer: Any, thinking: ThinkingFormat, prompt_ids: Sequence[int], special: frozenset[int]
) -> bool:
    """Whether the prompt ends inside a thought that has begun, as continued messages do.

    ``<think>`` in an earlier message is text: `special` tokens lie between it and the end.
    """
    for place in range(len(prompt_ids) - 1, -1, -1):
        token = prompt_ids[place]
        if _starts_at(thinking, prompt_ids, place):
            return not opens_in_thinking(tokenizer, thinking, prompt_ids)
        if token == thinking.end_id or token in special:
            return False
    return False
