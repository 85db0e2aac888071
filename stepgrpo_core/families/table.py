"""Model families: the format of their thinking, and how their tokenizers are recognized.

The rows come from the models' published chat templates and tokenizers; only the demo's weights were
available for tests. Closing text and tool starts of a row are used if the model's own chat template
does not show them (`templates`).
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.names import suggest
from stepgrpo_core.policies import ExitSettings

__all__ = [
    "AUTO_FAMILY",
    "FAMILIES",
    "Family",
    "FamilyChoice",
    "apply_family",
    "read_families",
    "recognize",
]

_DEFAULT = ExitSettings()


@dataclass(frozen=True, slots=True)
class Family:
    """Format of the thinking of a model family."""

    name: str
    models: str = ""
    """Names of the models."""
    start: str = "<think>"
    """Start of the thinking: one token, or several of which the first and last are added tokens."""
    end: str = "</think>"
    """End of the thinking, in tokens like `start`."""
    closing: str = _DEFAULT.closing_text
    """Text forced on exit; contains `end`. The answer is generated after it."""
    derived: bool = field(default=True, compare=False)
    """True if the closing text in the model's chat template takes precedence over `closing`."""
    tools: tuple[str, ...] = ()
    """Texts that open a tool call, in addition to `TOOL_STARTS` and those of the chat template."""
    inducing: str = _DEFAULT.inducing_prompt
    """Text that induces an answer inside the thinking."""
    tokens: tuple[str, ...] = ()
    """Tokens besides `start` and `end` that all tokenizers of the family have."""
    template: tuple[str, ...] = ()
    """Texts that all chat templates of the family contain."""
    opens: bool = False
    """True if the chat template ends prompts with `start`."""
    off: str = ""
    """Switch that disables thinking, for the documentation."""
    text: bool = False
    """True if start and end are plain text, whose tokens may merge with the text beside them."""
    exits: bool = True
    """True if exits are supported; if False, thinking is only counted."""
    note: str = ""

    def same_format(self, other: "Family") -> bool:
        """Return whether both families behave the same here."""
        names = ("start", "end", "closing", "inducing", "text", "exits")
        return all(getattr(self, name) == getattr(other, name) for name in names)


_CHATML = ("<|im_start|>", "<|im_end|>")
_QWEN = (*_CHATML, "<tool_call>")
_DEEPSEEK = ("<｜User｜>", "<｜Assistant｜>")
_ROWS = (
    Family(
        "qwen3",
        "Qwen3, its thinking variants",
        tokens=_QWEN,
        off="`enable_thinking`; the Thinking variants cannot",
    ),
    Family("qwq", "QwQ-32B, StepFun-3.5", tokens=_QWEN, opens=True, off="cannot"),
    Family(
        "qwen3.5",
        "Qwen3.5 to Qwen3.8",
        tokens=_QWEN,
        template=("enable_thinking", "<function="),
        opens=True,
        off="`enable_thinking`",
    ),
    Family(
        "deepseek-r1",
        "DeepSeek-R1, its distillations",
        tokens=_DEEPSEEK,
        opens=True,
        off="cannot",
    ),
    Family(
        "deepseek-v3.1",
        "DeepSeek-V3.1",
        closing="</think>",
        tokens=_DEEPSEEK,
        template=("thinking",),
        off="`thinking`",
    ),
    Family(
        "deepseek-v3.2",
        "DeepSeek-V3.2, V4",
        closing="</think>",
        tools=("｜DSML｜",),
        tokens=(*_DEEPSEEK, "｜DSML｜"),
        off="`thinking`, `enable_thinking`",
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
        "kimi-k3",
        "Kimi-K3",
        start="<|open|>think<|sep|>",
        end="<|close|>think<|sep|>",
        closing="<|close|>think<|sep|><|open|>response<|sep|>",
        tools=("<|open|>tools<|sep|>",),
        tokens=("<|open|>", "<|close|>", "<|sep|>"),
        opens=True,
        off="`thinking`",
    ),
    Family(
        "nemotron",
        "Nemotron 3",
        closing="\n</think>\n",
        tokens=(*_CHATML, "<SPECIAL_20>", "<SPECIAL_21>"),
        opens=True,
        off="`enable_thinking`",
    ),
    Family(
        "minimax-m2",
        "MiniMax-M2",
        tools=("<minimax:tool_call>",),
        tokens=("]~b]", "[e~["),
        opens=True,
        off="cannot",
    ),
    Family(
        "minimax-m3",
        "MiniMax-M3",
        start="<mm:think>",
        end="</mm:think>",
        closing="</mm:think>",
        tools=("]<]minimax[>[",),
        off="`thinking_mode`",
    ),
    Family(
        "seed-oss",
        "Seed-OSS",
        start="<seed:think>",
        end="</seed:think>",
        closing="</seed:think>\n",
        tools=("<seed:tool_call>",),
        off="`thinking_budget` of 0",
    ),
    Family(
        "gemma4",
        "Gemma-4",
        start="<|channel>",
        end="<channel|>",
        closing="\n<channel|>",
        tools=("<|tool_call>",),
        tokens=("<|turn>",),
        off="`enable_thinking`",
    ),
    Family(
        "cohere",
        "Command-A-Reasoning and later",
        start="<|START_THINKING|>",
        end="<|END_THINKING|>",
        closing="<|END_THINKING|><|START_TEXT|>",
        tools=("<|START_ACTION|>",),
        tokens=("<|START_OF_TURN_TOKEN|>",),
        off="`reasoning`",
    ),
    Family(
        "command-r7b",
        "Command-R7B",
        start="<|START_THINKING|>",
        end="<|END_THINKING|>",
        closing="<|END_THINKING|><|START_RESPONSE|>",
        tools=("<|START_ACTION|>",),
        tokens=("<|START_OF_TURN_TOKEN|>",),
        template=("<|START_RESPONSE|>",),
        off="`enable_thinking`",
    ),
    Family(
        "hy3",
        "Hy3",
        start="<think:opensource>",
        end="</think:opensource>",
        closing="</think:opensource>",
        tools=("<tool_calls:opensource>",),
        off="`reasoning_effort` no_think",
    ),
    Family(
        "solar",
        "Solar-Open",
        start="<|think|>",
        end="<|end|>",
        closing="<|end|><|begin|>assistant<|content|>",
        tools=("<|tool_calls|>",),
        tokens=("<|begin|>", "<|content|>"),
        off="`reasoning_effort` minimal",
    ),
    Family(
        "mistral",
        "Magistral, Ministral-3-Reasoning",
        start="[THINK]",
        end="[/THINK]",
        closing="[/THINK]",
        tools=("[TOOL_CALLS]",),
        off="cannot",
        note="with a tokenizer of transformers: vLLM's `--tokenizer-mode hf`",
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
    Family(
        "lfm2.5",
        "LFM2.5",
        closing="</think>",
        tools=("<|tool_call_start|>",),
        tokens=(*_CHATML, "<|tool_call_start|>"),
        off="cannot",
    ),
    Family("phi-4", "Phi-4-reasoning", tokens=(*_CHATML, "<|im_sep|>"), off="cannot"),
    Family(
        "demo",
        "demo-base, demo-step-grpo",
        tokens=_CHATML,
        template=("for part in message.content if part.type == 'text'",),
        off="`enable_thinking`",
    ),
    Family("think", "any other with both tokens", off="as its template can"),
    Family(
        "apriel",
        "Apriel-1.6",
        start="Here are my reasoning steps:",
        end="[BEGIN FINAL RESPONSE]",
        closing="\n[BEGIN FINAL RESPONSE]\n",
        template=("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
        opens=True,
        text=True,
        off="cannot",
    ),
    Family(
        "think-text",
        "Olmo-3, Nemotron-Nano-v2, Granite-3.3, Hunyuan-A13B, bases trained to write `<think>`",
        template=("<think>", "</think>"),
        text=True,
        off="as its template can",
        note="by name also where the template does not hold both",
    ),
)
FAMILIES: Mapping[str, Family] = {row.name: row for row in _ROWS}
"""Built-in families by name."""


def recognize(
    has: Callable[[str], bool],
    writes: Callable[[Family], bool],
    opens: Callable[[], bool | None],
    own: Mapping[str, Family],
    template: str = "",
) -> Family | None:
    """Return the family of a tokenizer; None if no family fits.

    `has` tells whether the tokenizer has a token, `writes` whether it has the tokens of a family's
    thinking, `opens` whether its chat `template` opens the thinking (None without a template),
    which decides between families of the same format. The user's `own` families precede the
    built-in ones; the family with the most tokens wins, then the one with the most texts in the
    template; families that mark thinking by text come last. Raises InvalidSetting if several
    families of different formats remain.
    """
    for families in (own, FAMILIES):
        found = [each for each in families.values() if all(map(has, each.tokens)) and writes(each)]
        found = [each for each in found if all(text in template for text in each.template)]
        if not found:
            continue
        most = max(map(_rank, found))
        best = [each for each in found if _rank(each) == most]
        if len(best) == 1:
            return best[0]
        if all(each.same_format(best[0]) for each in best):
            opened = opens()
            return next((each for each in best if each.opens == opened), best[0])
        names = ", ".join(each.name for each in best)
        raise InvalidSetting("family", None, f"the tokenizer fits {names}; name one of them")
    return None


def _rank(family: Family) -> tuple[bool, int, int]:
    """Return the sort key of a family that fits; higher is more specific."""
    return not family.text, len(family.tokens), len(family.template)


def apply_family(settings: ExitSettings, family: Family) -> ExitSettings:
    """Return the settings with the family's texts in place of the default ones."""
    closing, inducing = settings.closing_text, settings.inducing_prompt
    return dataclasses.replace(
        settings,
        closing_text=family.closing if closing == _DEFAULT.closing_text else closing,
        inducing_prompt=family.inducing if inducing == _DEFAULT.inducing_prompt else inducing,
    )


def read_families(value: Any) -> Mapping[str, Family]:
    """Parse user-defined families, a mapping of names to fields; raises ValueError with a remedy.

    `closing` defaults to the closing text in the chat template, or else the end between newlines.
    `tokens`, `tools` and `template` are lists.
    """
    if not isinstance(value, Mapping):
        raise ValueError("use a mapping of family names to fields")
    return {str(name): _read(str(name), fields) for name, fields in value.items()}


@dataclass(frozen=True, slots=True)
class FamilyChoice:
    """The family of a model as set by the user; raises InvalidSetting."""

    name: str | None = None
    """Name of the family; None recognizes it from the tokenizer."""
    described: Mapping[str, Any] = field(default_factory=dict)
    """User-defined families, a mapping of names to fields as in the server's YAML file."""

    def __post_init__(self) -> None:
        known = [*FAMILIES, *self.own]
        if self.name is not None and self.name not in known:
            raise InvalidSetting("family", self.name, f"use one of {', '.join(known)}")

    @property
    def own(self) -> Mapping[str, Family]:
        """Return the user-defined families."""
        try:
            return read_families(self.described)
        except ValueError as error:
            raise InvalidSetting("families", dict(self.described), str(error)) from error


AUTO_FAMILY = FamilyChoice()
"""The default: recognize the family from the tokenizer."""


def _read(name: str, fields: Any) -> Family:
    if not isinstance(fields, Mapping):
        raise ValueError(f"{name}: use fields such as start and end")
    known = {field.name: field for field in dataclasses.fields(Family) if field.name != "name"}
    for key, value in fields.items():
        if key not in known:
            raise ValueError(f"{name}.{key}: {suggest(key, known)}")
        _check(f"{name}.{key}", value, known[key].default)
    given: dict[str, Any] = {
        key: tuple(each) if isinstance(each, list) else each for key, each in fields.items()
    }
    end = given.get("end", "</think>")
    defaults: dict[str, Any] = {"closing": f"\n{end}\n\n", "derived": "closing" not in given}
    family = Family(name, **(defaults | given))
    if family.end not in family.closing:
        raise ValueError(f"{name}.closing: {family.closing!r} must contain the end, {family.end!r}")
    return family


def _check(key: str, value: Any, default: Any) -> None:
    texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
    good = texts if isinstance(default, tuple) else type(value) is type(default)
    if not good or value == "":
        kind = {tuple: "a list of texts", bool: "true or false"}.get(type(default), "a text")
        raise ValueError(f"{key}={value!r}: use {kind}")
