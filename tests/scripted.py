"""A scripted driver: plays a token stream and probe answers to a controller, at any timing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stepgrpo_core import (
    CancelProbe,
    CloseThinking,
    Emit,
    ExitController,
    ExitSettings,
    Finished,
    Outcome,
    ProbeAnswered,
    StartProbe,
    State,
    ThinkingFormat,
    Tokens,
)
from stepgrpo_core.events import Cause, Command
from stepgrpo_core.policies import Trial

START, END, EOS = 1, 2, 3
THINKING = ThinkingFormat(START, END, closing_ids=(100, END, 101))
FIXED = {START: "<think>", END: "</think>", EOS: "", 100: "\n", 101: "\n\n"}


@dataclass
class Script:
    """What the model would generate: words are tokens, numbered from 10 by first appearance."""

    words: Sequence[str]
    answer: Sequence[int] = (50, 51, EOS)
    cause: Cause = "eos"
    confidences: Callable[[int], float | None] = lambda position: 0.0
    """Confidence of the trial after so many tokens; None makes the probe fail."""
    vocabulary: dict[str, int] = field(default_factory=dict)

    @property
    def ids(self) -> list[int]:
        known = {text: token for token, text in FIXED.items() if text}
        return [
            known.get(word) or self.vocabulary.setdefault(word, 200 + len(self.vocabulary))
            for word in self.words
        ]


@dataclass
class Played:
    """What came of it."""

    emitted: list[int]
    outcome: Outcome
    close: CloseThinking | None
    probes: list[StartProbe]
    cancelled: list[int]
    most_in_flight: int


def trial(confidence: float | None, *, ended: bool = True) -> Trial | None:
    """A two-token trial whose second token has this probability."""
    if confidence is None:
        return None
    return Trial((7, END), (0.0, math.log(confidence) if confidence else -math.inf), ended)


def play(
    script: Script,
    settings: ExitSettings,
    *,
    answer_now: Callable[[int], bool] = lambda tick: True,
    chunk: Callable[[int], int] = lambda tick: 1,
    max_tokens: int | None = None,
    thinking_open: bool = False,
) -> Played:
    """Run one sequence; `answer_now(tick)` says whether the latest open probe answers then."""
    controller = ExitController(
        settings, THINKING, max_tokens=max_tokens, thinking_open=thinking_open
    )
    player = _Player(controller, script)
    stream, texts, tick, ended = script.ids, list(script.words), 0, False
    while controller.state is not State.DONE:
        tick += 1
        if player.open and (not stream or answer_now(tick)):
            player.answer(tick)
        elif stream:
            size = max(chunk(tick), 1)
            player.feed(Tokens(stream[:size], texts[:size]))
            del stream[:size], texts[:size]
        if not stream and not ended and not player.close:
            ended = True
            player.feed(Finished(script.cause))
        if player.close and not player.answered:
            stream, texts = [], []
            player.answered = True
            player.feed(Tokens(script.answer, ["x"] * len(script.answer)))
            player.feed(Finished("eos"))
    return Played(
        player.emitted,
        controller.outcome,
        player.close,
        player.probes,
        player.cancelled,
        player.most_in_flight,
    )


class _Player:
    def __init__(self, controller: ExitController, script: Script) -> None:
        self.controller = controller
        self.script = script
        self.emitted: list[int] = []
        self.generated: list[int] = []
        self.open: list[StartProbe] = []
        self.probes: list[StartProbe] = []
        self.cancelled: list[int] = []
        self.close: CloseThinking | None = None
        self.answered = False
        self.most_in_flight = 0
        self._taken = 0

    def feed(self, event: Tokens | Finished) -> None:
        if isinstance(event, Tokens):
            self.generated += event.ids
        self._execute(self.controller.receive(event))

    def answer(self, tick: int) -> None:
        command = self.open.pop(tick % len(self.open))
        confidence = self.script.confidences(command.position)
        self._execute(self.controller.receive(ProbeAnswered(command.probe, trial(confidence))))

    def _execute(self, commands: Sequence[Command]) -> None:
        for command in commands:
            if isinstance(command, Emit):
                assert self._taken + command.count <= len(self.generated)
                self.emitted += self.generated[self._taken : self._taken + command.count]
                self._taken += command.count
            elif isinstance(command, StartProbe):
                self.probes.append(command)
                self.open.append(command)
            elif isinstance(command, CancelProbe):
                self.cancelled.append(command.probe)
                self.open = [each for each in self.open if each.probe != command.probe]
            else:
                assert self._taken == command.position
                self.close = command
                self.emitted += command.closing_ids
                self.generated, self._taken, self.open = [], 0, []
        self.most_in_flight = max(self.most_in_flight, len(self.open))
