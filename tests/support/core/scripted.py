"""A scripted driver: plays a token stream and probe answers to a controller, with any timing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stepgrpo_core import (
    CancelProbe,
    CloseThinking,
    Emit,
    ExitController,
    ExitSettings,
    Outcome,
    ProbeAnswered,
    ProbeRefused,
    StartProbe,
    ThinkingFormat,
)
from stepgrpo_core.control.events import Cause, Command
from stepgrpo_core.control.sequence import SequenceState
from stepgrpo_core.policies import Answer, InducedAnswer, Matcher

START, END, EOS, TOOL = 1, 2, 3, 4
THINKING = ThinkingFormat(START, END, closing_ids=(100, END, 101), tool_ids=frozenset({TOOL}))
FIXED = {START: "<think>", END: "</think>", EOS: "", TOOL: "<tool_call>", 100: "\n", 101: "\n\n"}


@dataclass
class Script:
    """The model's scripted generation: words are tokens, numbered by first appearance."""

    words: Sequence[str]
    answer: Sequence[int] = (50, 51, EOS)
    cause: Cause = "eos"
    confidences: Callable[[int], float | None] = lambda position: 0.0
    """Confidence of the trial after so many tokens; None makes the probe fail."""
    answers: Callable[[StartProbe], Answer | None] | None = None
    """Answers of the probes; None: a trial with the confidence of `confidences`."""
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
    """The result of a run."""

    emitted: list[int]
    outcome: Outcome
    close: CloseThinking | None
    probes: list[StartProbe]
    cancelled: list[int]
    most_in_flight: int


def trial(confidence: float | None, *, ended: bool = True) -> InducedAnswer | None:
    """Return a two-token trial whose second token has this probability."""
    if confidence is None:
        return None
    return InducedAnswer((7, END), (0.0, math.log(confidence) if confidence else -math.inf), ended)


def play(
    script: Script,
    settings: ExitSettings,
    *,
    answer_now: Callable[[int], bool] = lambda tick: True,
    refuses: Callable[[int], bool] = lambda probe: False,
    late: Callable[[int], bool] = lambda tick: False,
    chunk: Callable[[int], int] = lambda tick: 1,
    max_tokens: int | None = None,
    thinking_open: bool = False,
    thinking_implied: bool = False,
    may_answer: bool = False,
    matcher: Matcher | None = None,
    wish_at: int | None = None,
    abort_at: int | None = None,
) -> Played:
    """Run one sequence. `answer_now(tick)` tells whether the latest open probe is answered then,
    `refuses(probe)` whether it is not sent at all. After a `late(tick)`, an unexpected answer
    arrives: of a probe that was cancelled, or has answered or failed before.

    The streams are cut at `max_tokens`, as an engine would. At tick `wish_at` the client asks for
    the answer; at `abort_at` it disconnects.
    """
    controller = ExitController(
        settings,
        THINKING,
        max_tokens=max_tokens,
        thinking_open=thinking_open,
        thinking_implied=thinking_implied,
        may_answer=may_answer,
        matcher=matcher,
    )
    state = SequenceState(controller, ())
    player = _Player(state, script, refuses)
    stream = _Stream(script.ids, script.words, script.cause, max_tokens)
    tick = 0
    while not state.done:
        tick += 1
        if late(tick):
            player.answer_late(tick)
        if tick == abort_at:
            player.execute(state.abort())
        elif tick == wish_at:
            player.execute(state.finish_thinking())
        elif player.open and (stream.ended or answer_now(tick)):
            player.answer(tick)
        else:
            player.execute(state.take(*stream.take(chunk(tick))))
        if player.close and not player.answered:
            player.answered = True
            left = None if max_tokens is None else max_tokens - len(player.emitted)
            assert state.answer_max_tokens == left != 0
            assert state.prefix_ids == player.emitted
            stream = _Stream(script.answer, ["x"] * len(script.answer), "eos", left)
    if late(tick):
        player.answer_late(tick)
    aborted = state.current.cause == "abort"
    assert player.emitted == state.ids[: len(player.emitted) if aborted else None]
    return Played(
        player.emitted,
        controller.outcome,
        player.close,
        player.probes,
        player.cancelled,
        player.most_in_flight,
    )


class _Stream:
    """The tokens that one request to the engine generates, taken in chunks."""

    def __init__(
        self, ids: Sequence[int], texts: Sequence[str], cause: Cause, limit: int | None
    ) -> None:
        self.ended = False
        self._ids, self._texts = list(ids)[:limit], list(texts)[:limit]
        self._cause: Cause = cause if len(self._ids) == len(ids) else "length"

    def take(self, size: int) -> tuple[list[int], list[str], Cause | None]:
        """Return the next tokens with their texts, and the end with the last of them."""
        assert not self.ended
        size = max(size, 1)
        ids, texts = self._ids[:size], self._texts[:size]
        del self._ids[:size], self._texts[:size]
        self.ended = not self._ids
        return ids, texts, self._cause if self.ended else None


class _Player:
    def __init__(
        self, state: SequenceState, script: Script, refuses: Callable[[int], bool]
    ) -> None:
        self.refuses = refuses
        self.state = state
        self.script = script
        self.emitted: list[int] = []
        self.open: list[StartProbe] = []
        self.probes: list[StartProbe] = []
        self.cancelled: list[int] = []
        self.close: CloseThinking | None = None
        self.answered = False
        self.most_in_flight = 0
        self._taken = 0

    def answer(self, tick: int) -> None:
        command = self.open.pop(tick % len(self.open))
        if self.script.answers:
            answer = self.script.answers(command)
        else:
            answer = trial(self.script.confidences(command.position))
        self.execute(self.state.end_probe(ProbeAnswered(command.probe, answer)))

    def answer_late(self, tick: int) -> None:
        gone = [each for each in self.probes if each not in self.open]
        if gone:
            command = gone[tick % len(gone)]
            answer = self.script.answers(command) if self.script.answers else trial(1.0)
            event = ProbeAnswered(command.probe, answer)
            assert self.state.controller.receive(event) == self.state.end_probe(event) == []

    def execute(self, commands: Sequence[Command]) -> None:
        """Carry out commands as the engine of a driver does."""
        refused: list[ProbeRefused] = []
        generated = self.state.main.ids if self.close is None else self.state.answer.ids
        for command in commands:
            if isinstance(command, Emit):
                assert self._taken + command.count <= len(generated)
                self.emitted += generated[self._taken : self._taken + command.count]
                self._taken += command.count
            elif isinstance(command, StartProbe) and self.refuses(command.probe):
                refused.append(ProbeRefused(command.probe))
            elif isinstance(command, StartProbe):
                self.probes.append(command)
                self.open.append(command)
            elif isinstance(command, CancelProbe):
                self.cancelled.append(command.probe)
                self.open = [each for each in self.open if each.probe != command.probe]
            else:
                assert self._taken == command.position
                assert self.close is None
                self.close = command
                self.emitted += command.closing_ids
                generated, self._taken, self.open = self.state.answer.ids, 0, []
        for event in refused:
            self.execute(self.state.end_probe(event))
        self.most_in_flight = max(self.most_in_flight, len(self.open))


CONFIDENT = ExitSettings(policy="confidence", min_interval=0, answer_reserve=0)
ONE_STEP = ["<think>", "a", " b", "\n", "Wait", ",", " c", "</think>", "d", ""]
TWO_STEPS = ["<think>", "a", " b", " Wait", " c", " Wait", " d", "</think>", "e", ""]


def sure_from(position: int) -> Callable[[int], float]:
    return lambda at: 0.99 if at >= position else 0.1
