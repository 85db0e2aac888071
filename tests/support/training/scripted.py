"""A scripted model over small numbers with given thinking and confidence."""

import math
from dataclasses import dataclass

from stepgrpo_core import ExitSettings, ThinkingFormat
from stepgrpo_core.control.events import Cause
from training.rollouts.batch import Format, Request
from training.rollouts.scripted_engine import Stream

START, END, EOS, WAIT, NEWLINE, BLANK, ASK = 1, 2, 3, 4, 5, 6, 7
WORDS = {START: "<think>", END: "</think>", EOS: "", WAIT: " Wait", NEWLINE: "\n", BLANK: "\n\n"}
FORM = Format(
    ThinkingFormat(START, END, (NEWLINE, END, BLANK)),
    encode=lambda text: [ASK],
    texts_after=lambda prefix: lambda ids: [WORDS.get(token, f" w{token}") for token in ids],
)
SETTINGS = ExitSettings(policy="confidence", min_interval=0, answer_reserve=2)
PROMPT = (90, 91)
# Three steps: w10 w11 | Wait w12 w13 | Wait w14.
THINKING = (START, 10, 11, WAIT, 12, 13, WAIT, 14, END, 20, EOS)
ANSWER = (30, 31, EOS)


@dataclass
class Model:
    """A model that generates `thinking`, resumable anywhere, and `ANSWER` once it is closed."""

    thinking: tuple[int, ...] = THINKING
    confident_from: int | None = None
    """Number of generated tokens from which probes are confident."""
    probe_wait: int = 0
    probe_ends: bool = True

    def __call__(self, request: Request) -> Stream:
        generated = request.prompt_ids[len(PROMPT) :]
        if request.prompt_ids[-1] == ASK:
            sure = self.confident_from is not None and len(generated) - 1 >= self.confident_from
            logprobs = (0.0, math.log(0.99 if sure else 0.5), 0.0)
            ids = (50, 51, END if self.probe_ends else 52)
            cause: Cause = "eos" if self.probe_ends else "length"
            return Stream(ids, logprobs, cause, wait=self.probe_wait)
        if generated[-3:] == FORM.thinking.closing_ids:
            return Stream(ANSWER, (-0.3, -0.2, -0.1))
        assert generated == self.thinking[: len(generated)]
        rest = self.thinking[len(generated) :]
        return Stream(rest, tuple(-token / 100 for token in rest))
