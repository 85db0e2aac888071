"""Facts about thinking, found by rendering a model's own chat template.

A template is a program, so only the names of its variables are read from its source. Placeholder
words are rendered as question, reasoning, answer and tool name; the text that the template writes
around them is the format that the model was trained on. A template that fails to render gives no
facts and is not an error.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepgrpo_core.families.table import Family

__all__ = [
    "Render",
    "Switch",
    "closed_by",
    "closing_of",
    "efforts_of",
    "flags_of",
    "prompt_end",
    "render_of",
    "source_of",
    "switches_of",
    "tool_starts_of",
    "word_of",
]

Render = Callable[..., str | None]
"""Renders messages with template variables; returns None if the template fails."""

ASK, THOUGHT, ANSWER, NAME = "zqask", "zqthought", "zqanswer", "zqname"
FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Message fields from which templates read the reasoning of an assistant turn."""
ON = {"enable_thinking": True, "thinking": True}
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
WORDS = ("/no_think", "/nothink", "detailed thinking off", "no_think")
"""Words that templates look for in a system message."""
_ON = ("high", "enabled", True)
_OFF = (False, 0, "disabled", "off", "none", "no_think", "minimal", "low")
_RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt", "chat_template"})


@dataclass(frozen=True, slots=True)
class Switch:
    """A template variable that switches thinking off and on."""

    name: str
    off: Any
    on: Any
    """Value that switches thinking on; None if it is on by default."""


def source_of(tokenizer: Any, chat_template: str | None = None) -> str | None:
    """Return `chat_template`, or else the tokenizer's own; None without one."""
    own = getattr(tokenizer, "chat_template", None)
    if isinstance(own, Mapping):  # several named templates
        own = own.get("default") or next(iter(own.values()), None)
    return chat_template or (own if isinstance(own, str) else None)


def render_of(tokenizer: Any, chat_template: str | None = None) -> Render | None:
    """Return the renderer of `chat_template` or the tokenizer's own; None without a template."""
    if source_of(tokenizer, chat_template) is None:
        return None

    def render(messages: Sequence[Mapping[str, Any]], **variables: Any) -> str | None:
        try:
            text = tokenizer.apply_chat_template(
                list(messages), chat_template=chat_template, tokenize=False, **variables
            )
        except Exception:  # noqa: BLE001 - a template can raise anything
            return None
        return text if isinstance(text, str) else None

    return render


def prompt_end(render: Render, **variables: Any) -> str | None:
    """Return the end of a prompt after the user's text; None if the template fails."""
    text = render([_message("user", ASK)], add_generation_prompt=True, **variables)
    return None if text is None else text.rpartition(ASK)[2]


def closing_of(render: Render, start: str, end: str) -> str | None:
    """Return the text between reasoning and answer, which contains `end`; None if not shown."""
    dropped = None
    for variables in (ON, {}):
        for turn in _turns():
            text = render([_message("user", ASK), turn], **variables) or ""
            head, answer, _ = text.rpartition(ANSWER)
            between = head.rpartition(THOUGHT)[2] if THOUGHT in head else ""
            if answer and end in between:
                return between
            if answer and dropped is None:
                dropped = _closing_of_dropped(head.rpartition(ASK)[2], start, end)
    return dropped


def _turns() -> Iterator[Mapping[str, Any]]:
    for names in (FIELDS, *((name,) for name in FIELDS)):
        yield _message("assistant", ANSWER) | dict.fromkeys(names, THOUGHT)
    thought, answer = {"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": ANSWER}
    yield {"role": "assistant", "content": [thought, answer]}


def _closing_of_dropped(head: str, start: str, end: str) -> str | None:
    """Return the closing text that a turn shows whose reasoning the template dropped.

    Only an end without a start, or directly after it, is accepted: white space between the two is
    not part of the closing text.
    """
    before, found, after = head.rpartition(end)
    if not found or after.strip():
        return None
    if before.endswith(start) or start not in before:
        return end + after
    return None


def tool_starts_of(
    render: Render, added: Iterable[str], marks: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the text that opens a tool call in a turn.

    That is the first added token that is missing in a turn without a call and is not one of the
    thinking's `marks`, or else the first text between two added tokens; empty if neither exists.
    """
    tokens = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))) or "(?!)")
    plain, call = "".join((_turn_end(render, None), *marks)), _turn_end(render, _CALL)
    before, named, _ = call.partition(NAME)
    if not named:
        return ()
    found = [match.span() for match in tokens.finditer(before)]
    seen = set(tokens.findall(plain))
    for begin, end in found:
        if before[begin:end] not in seen:
            return (before[begin:end],)
    for (begin, _), (_, end) in itertools.pairwise(found):
        run = before[begin:end]
        if run not in plain and ANSWER not in run and THOUGHT not in run:
            return (run,)
    return ()


_FUNCTION = {"name": NAME, "arguments": {"zqkey": "zqvalue"}}
_CALL = {"id": "zqcall0001", "type": "function", "function": _FUNCTION}
_PARAMETERS = {"type": "object", "properties": {"zqkey": {"type": "string"}}}
_TOOL = {"type": "function", "function": {"name": NAME, "parameters": _PARAMETERS}}


def _turn_end(render: Render, call: Mapping[str, Any] | None) -> str:
    """Return all text after the user's, for a turn that answers or calls a tool."""
    turn: dict[str, Any] = _message("assistant", ANSWER) | dict.fromkeys(FIELDS, THOUGHT)
    if call is not None:
        turn["tool_calls"] = [call]
    for tools in (None, [_TOOL]):
        for content in (ANSWER, ""):
            text = render([_message("user", ASK), turn | {"content": content}], tools=tools)
            end = (text or "").rpartition(ASK)[2]
            if end and (call is None or NAME in end):
                return end
    return ""


# Switches.


def flags_of(render: Render, source: str) -> tuple[str, ...]:
    """Return the boolean variables that switch thinking: both values render differently."""
    found = []
    for name in (each for each in _variables(source) if each in ON):
        texts = [_written(render, name, value) for value in (False, True)]
        if None not in texts and texts[0] != texts[1]:
            found.append(name)
    return tuple(found)


def switches_of(render: Render, source: str, family: Family) -> tuple[Switch, ...]:
    """Return every other variable with a value that closes the prompt's thinking."""
    names = (name for name in _variables(source) if name not in ON)
    found = (_switch(render, name, family) for name in names)
    return tuple(each for each in found if each is not None)


def efforts_of(render: Render, source: str) -> Mapping[str, tuple[str, ...]]:
    """Return the accepted efforts by variable, for variables that change the rendering."""
    found, on = (
        {},
        dict.fromkeys(flags_of(render, source), True),
    )  # some templates read efforts only then
    for name in (each for each in _variables(source) if "effort" in each):
        texts = {effort: _written(render, name, effort, **on) for effort in EFFORTS}
        if len(set(texts.values())) > 1:
            found[name] = tuple(effort for effort, text in texts.items() if text is not None)
    return found


def word_of(render: Render, family: Family) -> str | None:
    """Return the word in a system message that closes the prompt's thinking.

    None if no word of `WORDS` does, or if the thinking is closed without it.
    """
    if closed_by(family, prompt_end(render)):
        return None
    for word in WORDS:
        text = render([_message("system", word), _message("user", ASK)], add_generation_prompt=True)
        if text is not None and closed_by(family, text.rpartition(ASK)[2]):
            return word
    return None


def closed_by(family: Family, end: str | None) -> bool:
    """Return whether a prompt with this end has its thinking closed.

    It does if it ends with the end of thinking or the start of an answer, or contains an empty
    thinking block.
    """
    end, tail = (end or "").rstrip(), family.closing.rpartition(family.end)[2].strip()
    empty = rf"{re.escape(family.start.strip())}\s*{re.escape(family.end.strip())}"
    opened = bool(tail) and end.endswith(tail)
    return opened or end.endswith(family.end.strip()) or re.search(empty, end) is not None


def _written(render: Render, name: str, value: Any, **others: Any) -> str | None:
    return render([_message("user", ASK)], add_generation_prompt=True, **others, **{name: value})


def _switch(render: Render, name: str, family: Family) -> Switch | None:
    """Return the switch `name`, if one of its values closes thinking that others leave open."""

    def closes(value: Any) -> bool | None:
        end = prompt_end(render, **{name: value})
        return None if end is None else closed_by(family, end)

    order = sorted(_OFF, key=lambda value: type(value) is not int) if "budget" in name else _OFF
    off = next((value for value in order if closes(value)), None)
    if off is None:
        return None
    if not closed_by(family, prompt_end(render)):
        return Switch(name, off, None)
    on = next((value for value in _ON if closes(value) is False), None)
    return None if on is None else Switch(name, off, on)


_BLOCKS = re.compile(r"\{[{%](.*?)[%}]\}", re.DOTALL)
_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_NAMES = re.compile(r"(?<![.\w])[A-Za-z_]\w*(?!\s*\(|\w)")
_LOCALS = re.compile(r"\b(?:for|macro)\s+([\w, ]+)")


def _variables(source: str) -> tuple[str, ...]:
    """Return the names in the template's code that may be variables of a request."""
    code = "\n".join(_QUOTED.sub("''", block) for block in _BLOCKS.findall(source))
    local = {name for names in _LOCALS.findall(code) for name in re.findall(r"\w+", names)}
    found = dict.fromkeys(_NAMES.findall(code))
    return tuple(name for name in found if name not in local | _RESERVED)


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}
