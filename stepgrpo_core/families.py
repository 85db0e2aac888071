"""Families of models: how each writes its thinking, and by what its tokenizer is recognised.

A row is what the models' published chat templates and tokenizers say; no weights but the demo's
were within reach. A family only counts where its end of thinking is no single token: text that
is merged with its neighbours cannot be cut or closed safely by ids.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.policies import ExitSettings

__all__ = ["FAMILIES", "Family", "in_family", "read_families", "recognise"]

_DEFAULT = ExitSettings()


@dataclass(frozen=True, slots=True)
class Family:
    """How a family of models writes thinking."""

    name: str
    models: str = ""
    """Which those are."""
    start: str = "<think>"
    """Opens the thinking; may be several tokens, of which the first and the last are added ones."""
    end: str = "</think>"
    """Ends it."""
    closing: str = _DEFAULT.closing_text
    """Injected on exit; holds `end`. The answer is generated after it."""
    inducing: str = _DEFAULT.inducing_prompt
    """Induces a trial answer inside the thinking."""
    tokens: tuple[str, ...] = ()
    """Tokens beside `start` and `end` that its tokenizers have, all of them."""
    opens: bool = False
    """The chat template ends prompts in `start`."""
    off: str = ""
    """What switches thinking off."""
    exits: bool = True
    """False: thinking is counted, and never ended from outside."""
    note: str = ""

    def writes_like(self, other: "Family") -> bool:
        """Whether it makes no difference which of them a model is of."""
        names = ("start", "end", "closing", "inducing", "exits")
        return all(getattr(self, name) == getattr(other, name) for name in names)


_CHATML = ("<|im_start|>", "<|im_end|>")
_ROWS = (
    Family(
        "qwen3",
        "Qwen3, Qwen3.5, their thinking variants",
        tokens=(*_CHATML, "<tool_call>"),
        off="`enable_thinking`; the Thinking variants cannot",
    ),
    Family("qwq", "QwQ-32B", tokens=(*_CHATML, "<tool_call>"), opens=True, off="cannot"),
    Family(
        "deepseek-r1",
        "DeepSeek-R1, its distillations, DeepSeek-V3.1",
        tokens=("<｜User｜>", "<｜Assistant｜>"),
        opens=True,
        off="cannot; V3.1: `thinking`",
    ),
    Family(
        "glm",
        "GLM-4.5 and later",
        closing="</think>\n",
        tokens=("[gMASK]", "<|user|>", "<|assistant|>"),
        off="`enable_thinking`",
    ),
    Family(
        "kimi",
        "Kimi-K2-Thinking, Kimi-K2.5",
        closing="</think>",
        tokens=("<|im_assistant|>", "<|im_middle|>"),
        off="cannot; K2.5: `thinking`",
        note="its published tokenizer is a slow one, which is not supported: use a converted one",
    ),
    Family(
        "nemotron",
        "Nemotron 3",
        closing="\n</think>\n",
        tokens=(*_CHATML, "<SPECIAL_20>", "<SPECIAL_21>"),
        opens=True,
        off="`enable_thinking`",
        note="in earlier ones <think> is text, no token: they are not recognised",
    ),
    Family(
        "gpt-oss",
        "gpt-oss (harmony)",
        start="<|channel|>analysis<|message|>",
        end="<|end|>",
        closing="<|end|><|start|>assistant<|channel|>final<|message|>",
        tokens=("<|start|>", "<|channel|>", "<|message|>", "<|return|>"),
        off="cannot",
        note="of several analysis messages only the first is thinking",
    ),
    Family("demo", "demo-base, demo-step-grpo", tokens=_CHATML, off="`enable_thinking`"),
    Family("think", "any other with both tokens", off="as its template can"),
)
FAMILIES: Mapping[str, Family] = {row.name: row for row in _ROWS}
"""Built-in families by name."""


def recognise(
    has: Callable[[str], bool],
    writes: Callable[[Family], bool],
    opens: Callable[[], bool | None],
    own: Mapping[str, Family],
) -> Family | None:
    """The family of a tokenizer; None if it is of none.

    `has` says whether it has a token, `writes` whether it writes a family's thinking in tokens,
    `opens` whether its chat template opens the thinking (None: no template), which tells apart
    those that write alike. The user's `own` families go before the built-in ones; the one with
    most tokens wins. Raises InvalidSetting when that leaves several between which it makes a
    difference.
    """
    for families in (own, FAMILIES):
        found = [each for each in families.values() if all(map(has, each.tokens)) and writes(each)]
        if not found:
            continue
        most = max(len(each.tokens) for each in found)
        best = [each for each in found if len(each.tokens) == most]
        if len(best) == 1:
            return best[0]
        if all(each.writes_like(best[0]) for each in best):
            opened = opens()
            return next((each for each in best if each.opens == opened), best[0])
        names = ", ".join(each.name for each in best)
        raise InvalidSetting("family", None, f"the tokenizer fits {names}; name one of them")
    return None


def in_family(settings: ExitSettings, family: Family) -> ExitSettings:
    """The settings with the family's texts where theirs are the built-in ones."""
    closing, inducing = settings.closing_text, settings.inducing_prompt
    return dataclasses.replace(
        settings,
        closing_text=family.closing if closing == _DEFAULT.closing_text else closing,
        inducing_prompt=family.inducing if inducing == _DEFAULT.inducing_prompt else inducing,
    )


def read_families(value: Any) -> Mapping[str, Family]:
    """Families of a user's, from name to fields; raises ValueError with the remedy.

    `closing` is the end between line ends unless given, `tokens` a list.
    """
    if not isinstance(value, Mapping):
        raise ValueError("use names of families with their fields")
    return {str(name): _read(str(name), fields) for name, fields in value.items()}


def _read(name: str, fields: Any) -> Family:
    if not isinstance(fields, Mapping):
        raise ValueError(f"{name}: use fields such as start and end")
    known = {field.name: field for field in dataclasses.fields(Family) if field.name != "name"}
    for key, value in fields.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            guess = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"{name}.{key}: {guess}use {', '.join(known)}")
        _check(f"{name}.{key}", value, known[key].default)
    given: dict[str, Any] = {
        key: tuple(each) if key == "tokens" else each for key, each in fields.items()
    }
    end = given.get("end", "</think>")
    made = Family(name, **({"closing": f"\n{end}\n\n"} | given))
    if made.end not in made.closing:
        raise ValueError(f"{name}.closing: {made.closing!r} must hold the end, {made.end!r}")
    return made


def _check(key: str, value: Any, default: Any) -> None:
    texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
    good = texts if isinstance(default, tuple) else type(value) is type(default)
    if not good or value == "":
        kind = {tuple: "a list of texts", bool: "true or false"}.get(type(default), "a text")
        raise ValueError(f"{key}={value!r}: use {kind}")
