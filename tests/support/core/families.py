"""Tokenizers with the added tokens of families, and a driver that plays text to a controller."""

import functools
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerFast

from stepgrpo_core import (
    CloseThinking,
    Emit,
    ExitController,
    ExitSettings,
    Finished,
    Outcome,
    State,
    Tokens,
)
from stepgrpo_core.control.events import Command
from stepgrpo_core.families.table import FAMILIES

# Added tokens as in the models' tokenizers: special ones, then ordinary ones.
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
THINK = ("<think>", "</think>")
COHERE = ("<|START_THINKING|>", "<|END_THINKING|>")
QWEN = (CHATML, ("<tool_call>", "</tool_call>", *THINK))
ADDED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "qwen3": QWEN,
    "qwq": QWEN,
    "deepseek-r1": (
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        ("<｜User｜>", "<｜Assistant｜>", *THINK, "<tool_call>"),
    ),
    "glm": (("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"), ("<tool_call>", *THINK)),
    "kimi": (("<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"), THINK),
    "nemotron": ((*CHATML, "<SPECIAL_20>", "<SPECIAL_21>"), ("<tool_call>", *THINK)),
    "gpt-oss": (
        ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"),
        (),
    ),
    "qwen3.5": QWEN,
    "deepseek-v3.1": (
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        ("<｜User｜>", "<｜Assistant｜>", *THINK, "<tool_call>"),
    ),
    "deepseek-v3.2": (("<｜User｜>", "<｜Assistant｜>"), (*THINK, "｜DSML｜")),
    "kimi-k3": (("<|open|>", "<|close|>", "<|sep|>"), ()),
    "minimax-m2": (("]~b]", "[e~["), THINK),
    "minimax-m3": (("]~b]", "[e~["), ("<mm:think>", "</mm:think>")),
    "seed-oss": (("<seed:bos>", "<seed:eos>"), ("<seed:think>", "</seed:think>")),
    "gemma4": (("<|turn>", "<turn|>", "<|channel>", "<channel|>"), ()),
    "cohere": (("<|START_OF_TURN_TOKEN|>", *COHERE, "<|START_TEXT|>"), ()),
    "command-r7b": (("<|START_OF_TURN_TOKEN|>", *COHERE, "<|START_RESPONSE|>"), ()),
    "hy3": ((), ("<think:opensource>", "</think:opensource>")),
    "solar": (("<|begin|>", "<|end|>", "<|content|>", "<|think|>"), ()),
    "mistral": (("[INST]", "[/INST]", "[THINK]", "[/THINK]"), ()),
    "lfm2.5": ((*CHATML, "<|tool_call_start|>"), THINK),
    "phi-4": ((*CHATML, "<|im_sep|>"), THINK),
    "demo": ((), (*CHATML, *THINK)),
    "think": (("<s>",), THINK),
    "apriel": (("<|begin_assistant|>", "<|end|>"), ()),
    "think-text": ((), ()),
}
OPENING = "{{ messages[0].content }}<think>\n"
PLAIN = "{{ messages[0].content }}"
LIMITED = ExitSettings(policy="budget", max_steps=1, budget_leaves_answer=False)


@functools.cache
def tokenizer_of(special: tuple[str, ...], normal: tuple[str, ...], template: str | None) -> Any:
    """Return a tokenizer of bytes and added tokens, which reproduces any text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({each: place for place, each in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(each, special=True) for each in special])
    core.add_tokens([AddedToken(each, special=False) for each in normal])
    made = PreTrainedTokenizerFast(tokenizer_object=core)
    if template is not None:
        made.chat_template = template
    return made


def family_tokenizer(name: str) -> Any:
    family = FAMILIES[name]
    template = PLAIN + family.start if family.opens else PLAIN
    return tokenizer_of(*ADDED[name], f"{template}{{# {' '.join(family.template)} #}}")


class Driver:
    """A driver that plays text to a controller, token by token, as a server does."""

    def __init__(self, tokenizer: Any, controller: ExitController, *, skip_special: bool) -> None:
        self.controller = controller
        self.emitted: list[int] = []
        self.close: CloseThinking | None = None
        self.played: list[int] = []
        self._tokenizer, self._skip = tokenizer, skip_special
        self._ids: list[int] = []

    def play(self, text: str) -> None:
        """Generate `text` in the stream until the thinking is closed."""
        stream = DecodeStream(skip_special_tokens=self._skip)
        for token in self._tokenizer.encode(text, add_special_tokens=False):
            self._ids.append(token)
            self.played.append(token)
            piece = stream.step(self._tokenizer.backend_tokenizer, token) or ""
            if self.execute(self.controller.receive(Tokens([token], [piece]))):
                return

    def execute(self, commands: list[Command]) -> bool:
        for command in commands:
            if isinstance(command, Emit):
                self.emitted += self._ids[: command.count]
                del self._ids[: command.count]
            elif isinstance(command, CloseThinking):
                self.close = command
                self.emitted += command.closing_ids
                self._ids.clear()
                return True
        return False

    def finish(self) -> Outcome:
        self.execute(self.controller.receive(Finished("eos")))
        assert self.controller.state is State.DONE
        return self.controller.outcome
