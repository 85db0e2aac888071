"""How a tokenizer writes thinking, and whether a prompt has opened it.

Tokenizers are duck-typed: `encode`, `decode` and `backend_tokenizer.token_to_id`, as every fast
tokenizer of transformers has them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from stepgrpo_core.answers import THINK_START
from stepgrpo_core.control.events import ThinkingFormat
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.families.table import FAMILIES, Family, recognize
from stepgrpo_core.families.templates import (
    closing_of,
    flags_of,
    prompt_end,
    render_of,
    source_of,
    tool_starts_of,
)

__all__ = [
    "TOOL_STARTS",
    "TokenizerFormat",
    "adapt_family",
    "continues_thinking",
    "family_of",
    "opens_in_thinking",
    "special_ids",
    "switches_of",
    "thinking_of",
    "tokenizer_format",
    "writes",
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
class TokenizerFormat:
    """How a tokenizer writes; a `stepgrpo_core.control.probing.Writer`."""

    thinking: ThinkingFormat
    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str] | None
    chat: Callable[[str], Sequence[int]] | None


_OFF: Mapping[str, Any] = MappingProxyType({"enable_thinking": False})


def tokenizer_format(
    tokenizer: Any, thinking: ThinkingFormat, off: Mapping[str, Any] = _OFF
) -> TokenizerFormat:
    """The tokenizer's own functions; no `chat` without a chat template. `off` are the template's
    variables that switch thinking off; other templates ignore them."""

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
            **off,
        )
        return ids

    chats = getattr(tokenizer, "chat_template", None) is not None
    return TokenizerFormat(thinking, encode, decode, chat if chats else None)


def family_of(
    tokenizer: Any,
    name: str | None = None,
    own: Mapping[str, Family] = MappingProxyType({}),
    chat_template: str | None = None,
) -> Family | None:
    """The family of `name`, of the user's `own` or the built-in ones, or else the one that this
    tokenizer is recognised by; None if it is of none, or no fast one. `chat_template` stands in
    for the tokenizer's own.

    Raises InvalidSetting for a name that is unknown, or that this tokenizer cannot write, and
    when several families fit.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return None
    if name is None:
        return recognize(
            lambda token: fast.token_to_id(token) is not None,
            lambda family: family.text or _marks(tokenizer, family) is not None,
            lambda: _opens(tokenizer, chat_template),
            own,
            source_of(tokenizer, chat_template) or "",
        )
    known = {**FAMILIES, **own}
    if name not in known:
        raise InvalidSetting("family", name, f"use one of {', '.join(known)}")
    if not known[name].text and _marks(tokenizer, known[name]) is None:
        family = known[name]
        remedy = f"this tokenizer cannot write {family.start} and {family.end} in tokens of its own"
        raise InvalidSetting("family", name, remedy)
    return known[name]


def writes(tokenizer: Any, family: Family) -> bool:
    """Whether a tokenizer writes the thinking of a family in tokens of its own."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    return fast is not None and _marks(tokenizer, family) is not None


def thinking_of(tokenizer: Any, family: Family, closing_text: str) -> ThinkingFormat:
    """How a tokenizer writes the thinking of a family that it is of.

    Raises InvalidSetting when `closing_text` does not close the thinking, or does not survive
    encoding and decoding: then ids and text would disagree in every completion.
    """
    if family.text:
        return _text_thinking(tokenizer, family, closing_text)
    marks = _marks(tokenizer, family)
    assert marks is not None
    (*before_start, start), (*before_end, end) = marks
    made = ThinkingFormat(start, end, (), tuple(before_start), tuple(before_end))
    if not family.exits:
        return made
    closing = _closing(tokenizer, family, closing_text)
    tools = [found for text in (*TOOL_STARTS, *family.tools) if (found := _ids_of(tokenizer, text))]
    return replace(
        made,
        closing_ids=closing,
        tool_ids=frozenset(each[0] for each in tools if len(each) == 1),
        tool_starts=tuple(tuple(each) for each in tools if len(each) > 1),
        bare_ids=() if before_start else _bare(tokenizer, closing_text),
    )


_TAGS = re.compile(r"</?[A-Za-z_|]+>|\[[A-Z_]+\]")
NEVER = -1
"""The id of start and end where those are text."""


def _text_thinking(tokenizer: Any, family: Family, closing_text: str) -> ThinkingFormat:
    """Of a family whose marks are text: any tokenizer writes them."""
    made = ThinkingFormat(
        NEVER, NEVER, (), start_text=family.start, end_text=family.end, tool_texts=family.tools
    )
    if not family.exits:
        return made
    closing = _closing(tokenizer, family, closing_text)
    before = closing_text.partition(family.end.strip())[0]
    texts = [tokenizer.decode(closing[:size]) for size in range(len(closing) + 1)]
    thought = sum(len(text) <= len(before) for text in texts) - 1
    bare = _bare(tokenizer, closing_text)
    return replace(made, closing_ids=closing, bare_ids=bare, closing_thought=thought)


def _closing(tokenizer: Any, family: Family, text: str) -> tuple[int, ...]:
    """Ids of a closing text; raises InvalidSetting as `thinking_of` does."""
    ids = tuple(tokenizer.encode(text, add_special_tokens=False))
    read = tokenizer.decode(ids, skip_special_tokens=False)
    if family.end.strip() not in text or read != text or not _holds_end(tokenizer, family, ids):
        raise InvalidSetting(
            "closing_text",
            text,
            f"it becomes {read!r} in this model's tokens; it must hold {family.end} and survive "
            "encoding",
        )
    return ids


def _holds_end(tokenizer: Any, family: Family, ids: Sequence[int]) -> bool:
    """Whether the end is among the ids, as tokens where it is marked by tokens."""
    if family.text:
        return True
    end = _ids_of(tokenizer, family.end) or ()
    size = len(end)
    return any(tuple(ids[at : at + size]) == tuple(end) for at in range(len(ids) - size + 1))


def _bare(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The closing for an answer that may not begin with white space."""
    return tuple(tokenizer.encode(text.rstrip(), add_special_tokens=False))


def adapt_family(tokenizer: Any, family: Family, chat_template: str | None = None) -> Family:
    """The family with the closing text and the tool starts that the model's own chat template
    shows (or `chat_template` in its place), as far as its tokenizer can write them."""
    render = render_of(tokenizer, chat_template)
    if render is None or not family.derived:
        return family
    closing = closing_of(render, family.start.strip(), family.end.strip())
    if closing is not None:
        try:
            _closing(tokenizer, family, closing)
        except InvalidSetting:
            closing = None
    added = [each.content for each in _added(tokenizer).values()]
    if family.text:  # and so may what opens a call
        added += _TAGS.findall(source_of(tokenizer, chat_template) or "")
    tools = tool_starts_of(render, added, (family.start, family.end))
    new = tuple(each for each in tools if each not in (*family.tools, *TOOL_STARTS))
    return replace(family, closing=closing or family.closing, tools=(*family.tools, *new))


def _added(tokenizer: Any) -> Mapping[int, Any]:
    found: Mapping[int, Any] = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return found


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


def _opens(tokenizer: Any, chat_template: str | None) -> bool | None:
    """Whether the chat template ends prompts in an opened thinking; None without one."""
    render = render_of(tokenizer, chat_template)
    end = prompt_end(render) if render else None
    return None if end is None else end.rstrip().endswith(THINK_START)


def opens_in_thinking(tokenizer: Any, thinking: ThinkingFormat, prompt_ids: Sequence[int]) -> bool:
    """Whether the prompt ends in the start of thinking, with nothing but white space after it.

    Only the end counts: the chat template wrote it. The start anywhere else is text.
    """
    if start := thinking.start_text.rstrip():
        tail_text: str = tokenizer.decode(list(prompt_ids[-len(start) - 8 :]))
        return tail_text.rstrip().endswith(start)
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


def switches_of(tokenizer: Any, chat_template: str | None = None) -> tuple[str, ...]:
    """The variables with which the tokenizer's chat template, or `chat_template` in its place,
    switches thinking by true and false; none without a template."""
    render, source = render_of(tokenizer, chat_template), source_of(tokenizer, chat_template)
    return () if render is None or source is None else flags_of(render, source)


def special_ids(tokenizer: Any, chat_template: str | None = None) -> frozenset[int]:
    """Ids of the tokens that stand between messages: the special ones, and those added ones with
    which the chat template ends a user's message and begins the answer. DeepSeek-R1's are not
    special."""
    added = _added(tokenizer)
    special = {token for token, written in added.items() if written.special}
    render = render_of(tokenizer, chat_template)
    end = (prompt_end(render) if render else None) or ""
    turn = set(tokenizer.encode(end, add_special_tokens=False)) & set(added) if end else set()
    marks = {token for token in turn if "think" in added[token].content.lower()}
    return frozenset(special | (turn - marks))


def continues_thinking(
    tokenizer: Any, thinking: ThinkingFormat, prompt_ids: Sequence[int], special: frozenset[int]
) -> bool:
    """Whether the prompt ends inside a thought that has begun, as continued messages do.

    ``<think>`` in an earlier message is text: `special` tokens lie between it and the end.
    """
    if thinking.start_text:
        return _continues_text(tokenizer, thinking, prompt_ids, special)
    for place in range(len(prompt_ids) - 1, -1, -1):
        token = prompt_ids[place]
        if _starts_at(thinking, prompt_ids, place):
            return not opens_in_thinking(tokenizer, thinking, prompt_ids)
        if token == thinking.end_id or token in special:
            return False
    return False


def _continues_text(
    tokenizer: Any, thinking: ThinkingFormat, prompt_ids: Sequence[int], special: frozenset[int]
) -> bool:
    begin = max((at for at, token in enumerate(prompt_ids) if token in special), default=-1) + 1
    text = tokenizer.decode(list(prompt_ids[begin:]))
    thought = text.rpartition(thinking.start_text.rstrip())[1:]
    return bool(thought[0] and thought[1].strip()) and thinking.end_text.strip() not in thought[1]
