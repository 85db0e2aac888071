"""The tokens of thinking for a tokenizer, and whether a prompt has opened it.

Tokenizers are duck-typed: they need `encode`, `decode` and `backend_tokenizer`, like every fast
tokenizer of transformers.
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
    "last_turn",
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
"""Texts that open a tool call, for tokenizers that have them as one token."""


@dataclass(frozen=True, slots=True)
class TokenizerFormat:
    """Functions of a tokenizer; implements `stepgrpo_core.control.probing.Writer`."""

    thinking: ThinkingFormat
    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str] | None
    chat: Callable[[str], Sequence[int]] | None


_OFF: Mapping[str, Any] = MappingProxyType({"enable_thinking": False})


def tokenizer_format(
    tokenizer: Any, thinking: ThinkingFormat, off: Mapping[str, Any] = _OFF
) -> TokenizerFormat:
    """Return the functions of a tokenizer; `chat` is None without a chat template.

    `off` are the template variables that switch thinking off; other templates ignore them.
    """

    @lru_cache(maxsize=16)  # all probes of a policy encode the same text
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

    has_template = getattr(tokenizer, "chat_template", None) is not None
    return TokenizerFormat(thinking, encode, decode, chat if has_template else None)


def family_of(
    tokenizer: Any,
    name: str | None = None,
    own: Mapping[str, Family] = MappingProxyType({}),
    chat_template: str | None = None,
) -> Family | None:
    """Return the family called `name`, or recognize it from the tokenizer.

    `own` are user-defined families; `chat_template` replaces the tokenizer's own. Returns None if
    no family fits or the tokenizer is not a fast one. Raises InvalidSetting for an unknown name, a
    family whose thinking this tokenizer cannot encode, and if several families fit.
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
        remedy = f"this tokenizer cannot write {family.start} and {family.end} in separate tokens"
        raise InvalidSetting("family", name, remedy)
    return known[name]


def writes(tokenizer: Any, family: Family) -> bool:
    """Return whether a tokenizer has tokens for start and end of a family's thinking."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    return fast is not None and _marks(tokenizer, family) is not None


def thinking_of(tokenizer: Any, family: Family, closing_text: str) -> ThinkingFormat:
    """Return the token ids of a family's thinking for its tokenizer.

    Raises InvalidSetting if `closing_text` does not close the thinking, or changes in encoding and
    decoding: then ids and text would differ in every completion.
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
"""Id of start and end if these are text, not tokens."""


def _text_thinking(tokenizer: Any, family: Family, closing_text: str) -> ThinkingFormat:
    """Return the format of a family whose marks are text, for any tokenizer."""
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
    """Return the ids of a closing text; raises InvalidSetting like `thinking_of`."""
    ids = tuple(tokenizer.encode(text, add_special_tokens=False))
    read = tokenizer.decode(ids, skip_special_tokens=False)
    if family.end.strip() not in text or read != text or not _holds_end(tokenizer, family, ids):
        raise InvalidSetting(
            "closing_text",
            text,
            f"it must contain {family.end} and survive encoding; this model's tokens decode to "
            f"{read!r}",
        )
    return ids


def _holds_end(tokenizer: Any, family: Family, ids: Sequence[int]) -> bool:
    """Return whether the ids contain the end; for text marks always true."""
    if family.text:
        return True
    end = _ids_of(tokenizer, family.end) or ()
    size = len(end)
    return any(tuple(ids[at : at + size]) == tuple(end) for at in range(len(ids) - size + 1))


def _bare(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Return the closing for an answer that must not begin with white space."""
    return tuple(tokenizer.encode(text.rstrip(), add_special_tokens=False))


def adapt_family(tokenizer: Any, family: Family, chat_template: str | None = None) -> Family:
    """Return the family with closing text and tool starts from the model's chat template.

    `chat_template` replaces the tokenizer's own. Texts that the tokenizer cannot encode are
    ignored.
    """
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
    if family.text:  # the start of a tool call may be text, too
        added += _TAGS.findall(source_of(tokenizer, chat_template) or "")
    tools = tool_starts_of(render, added, (family.start, family.end))
    new = tuple(each for each in tools if each not in (*family.tools, *TOOL_STARTS))
    return replace(family, closing=closing or family.closing, tools=(*family.tools, *new))


def _added(tokenizer: Any) -> Mapping[int, Any]:
    found: Mapping[int, Any] = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return found


def _marks(tokenizer: Any, family: Family) -> tuple[Sequence[int], Sequence[int]] | None:
    """Return the ids of start and end; None if the tokenizer has no tokens for one of them."""
    start, end = _ids_of(tokenizer, family.start), _ids_of(tokenizer, family.end)
    return None if start is None or end is None else (start, end)


def _ids_of(tokenizer: Any, mark: str) -> Sequence[int] | None:
    """Return the ids of a mark that cannot merge with the text around it; None if there are none.

    These are one added token, or several of which the first and last are added tokens.
    """
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
    """Return whether the chat template ends prompts in open thinking; None without a template."""
    render = render_of(tokenizer, chat_template)
    end = prompt_end(render) if render else None
    return None if end is None else end.rstrip().endswith(THINK_START)


def opens_in_thinking(tokenizer: Any, thinking: ThinkingFormat, prompt_ids: Sequence[int]) -> bool:
    """Return whether the prompt ends with the start of thinking and optional white space.

    Only the end of the prompt counts, which the chat template wrote; elsewhere the start is text.
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


def _starts_at(thinking: ThinkingFormat, ids: Sequence[int], index: int) -> bool:
    """Return whether the token at `index` completes the start of thinking."""
    if ids[index] != thinking.start_id:
        return False
    before = thinking.before_start
    return tuple(ids[max(index - len(before), 0) : index]) == before


def switches_of(tokenizer: Any, chat_template: str | None = None) -> tuple[str, ...]:
    """Return the boolean variables of the chat template that switch thinking.

    `chat_template` replaces the tokenizer's own; the result is empty without a template.
    """
    render, source = render_of(tokenizer, chat_template), source_of(tokenizer, chat_template)
    return () if render is None or source is None else flags_of(render, source)


def special_ids(tokenizer: Any, chat_template: str | None = None) -> frozenset[int]:
    """Return the ids of the tokens that separate messages.

    These are the special tokens, and the added tokens between a user's message and the answer in
    the chat template: DeepSeek-R1's are not special.
    """
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
    """Return whether the prompt ends inside thinking that has begun, as in continued messages.

    ``<think>`` in an earlier message is text: `special` tokens separate it from the end.
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
    thought = last_turn(tokenizer, prompt_ids, special).rpartition(thinking.start_text.rstrip())[1:]
    return bool(thought[0] and thought[1].strip()) and thinking.end_text.strip() not in thought[1]


def last_turn(tokenizer: Any, prompt_ids: Sequence[int], special: frozenset[int]) -> str:
    """Return the text of a prompt after its last special token."""
    begin = max((at for at, token in enumerate(prompt_ids) if token in special), default=-1) + 1
    return str(tokenizer.decode(list(prompt_ids[begin:])))
