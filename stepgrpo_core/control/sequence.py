"""The token ids of one sequence, and what its exit controller makes of them.

Every driver of the controller keeps a `SequenceState`: the server, the rollouts, and the offline
driver over finished generations. What is delivered, trained on and counted is therefore computed
once. Like the controller it is sans-IO: a driver passes in what its streams generate and carries
out the commands that come back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from stepgrpo_core.control.controller import ExitController
from stepgrpo_core.control.events import (
    CancelProbe,
    Cause,
    CloseThinking,
    Command,
    Emit,
    Event,
    Finished,
    FinishThinking,
    Outcome,
    ProbeAnswered,
    ProbeRefused,
    StartProbe,
    Tokens,
)
from stepgrpo_core.control.probing import Probe, Writer, build_probe
from stepgrpo_core.control.states import State
from stepgrpo_core.errors import ProtocolViolation

__all__ = ["SequenceState", "TokenStream", "splice"]

_Value = TypeVar("_Value")


@dataclass(slots=True)
class TokenStream:
    """The tokens that one generation has produced so far."""

    ids: list[int] = field(default_factory=list)
    cause: Cause | None = None
    """The reason for its end; None while it runs."""


class SequenceState:
    """One sequence under its exit controller.

    `main` is generated from the prompt. After an exit the completion is the part of `main` before
    the cut, then the injected closing, then `answer`.
    """

    def __init__(self, controller: ExitController, prompt_ids: Sequence[int]) -> None:
        self.controller = controller
        self.prompt_ids = prompt_ids
        self.main = TokenStream()
        self.answer = TokenStream()
        self.current = self.main
        """The stream whose tokens `take` expects."""
        self.close: CloseThinking | None = None
        """The command that ended the thinking; None without an exit."""
        self.probes: dict[int, StartProbe] = {}
        """Probes in flight, by number."""

    # Events.

    def take(
        self, ids: Sequence[int], texts: Sequence[str] | None = None, cause: Cause | None = None
    ) -> list[Command]:
        """Take tokens of the current stream, and its end if `cause` is set; return the commands.

        `texts` are the increments of a streaming decoder, one per id; None is allowed in the
        answer, whose text decides nothing. Raises ProtocolViolation as the controller does.
        """
        if texts is None:
            if not self.answering:
                raise ProtocolViolation("tokens of the thinking came without their text")
            texts = ("",) * len(ids)
        stream = self.current
        stream.ids += ids
        if cause is None:
            return self._receive(Tokens(ids, texts))
        stream.cause = cause
        return self._receive(Tokens(ids, texts), Finished(cause))

    def end_probe(self, event: ProbeAnswered | ProbeRefused) -> list[Command]:
        """Take the end of a probe; the answer of one that was canceled is ignored."""
        canceled = self.probes.pop(event.probe, None) is None
        return [] if canceled and isinstance(event, ProbeAnswered) else self._receive(event)

    def finish_thinking(self) -> list[Command]:
        """Close the thinking as soon as possible, because the client asks for its answer."""
        return self._receive(FinishThinking())

    def abort(self) -> list[Command]:
        """End the sequence where it is; nothing happens if it is done."""
        if self.done:
            return []
        self.current.cause = "abort"
        return self._receive(Finished("abort"))

    def _receive(self, *events: Event) -> list[Command]:
        commands = self.controller.receive(*events)
        for command in commands:
            if isinstance(command, Emit):  # first, because nearly every token has one
                continue
            if isinstance(command, StartProbe):
                self.probes[command.probe] = command
            elif isinstance(command, CancelProbe):
                self.probes.pop(command.probe, None)
            else:
                self.close, self.current = command, self.answer
        return commands

    # Commands.

    def probe_for(self, command: StartProbe, writer: Writer) -> Probe | None:
        """Return the probe that a command asks for; None if no generation can answer it."""
        return build_probe(command.spec, self.prompt_ids, self.ids_before(command), writer)

    def ids_before(self, command: StartProbe) -> list[int]:
        """Return the generated tokens after which a probe runs."""
        return self.main.ids[: command.position]

    @property
    def closing_ids(self) -> tuple[int, ...]:
        """The injected tokens; empty without an exit."""
        return () if self.close is None else self.close.closing_ids

    @property
    def prefix_ids(self) -> list[int]:
        """Completion tokens that precede the answer's stream, whose prompt they extend."""
        return [*self.main.ids[: self.kept_tokens], *self.closing_ids]

    @property
    def answer_max_tokens(self) -> int | None:
        """Tokens left for the answer's stream after an exit; None: no limit."""
        limit = self.controller.max_tokens
        return None if limit is None else limit - self.kept_tokens - len(self.closing_ids)

    # The account.

    @property
    def answering(self) -> bool:
        """True if the thinking is over, but not the sequence."""
        return self.controller.state is State.ANSWERING

    @property
    def done(self) -> bool:
        """True at the end of the sequence."""
        return self.controller.state is State.DONE

    @property
    def ended(self) -> bool:
        """True if the model ended the completion itself."""
        return self.current.cause == "eos"

    @property
    def outcome(self) -> Outcome:
        """The controller's account of a sequence that is done."""
        return self.controller.outcome

    @property
    def cut_at(self) -> int | None:
        """Tokens of `main` before the exit; None without one."""
        return None if self.close is None else self.close.position

    @property
    def kept_tokens(self) -> int:
        """Tokens of `main` in the completion."""
        return len(self.main.ids) if self.close is None else self.close.position

    @property
    def discarded_tokens(self) -> int:
        """Tokens of `main` that were taken and are not in the completion."""
        return len(self.main.ids) - self.kept_tokens

    @property
    def ids(self) -> list[int]:
        """(L,) token ids of the completion."""
        return self.column(self.main.ids, self.closing_ids, self.answer.ids)

    @property
    def injected(self) -> list[bool]:
        """(L,) mask of the tokens that the model did not generate."""
        main, answer = [False] * len(self.main.ids), [False] * len(self.answer.ids)
        return self.column(main, [True] * len(self.closing_ids), answer)

    def column(
        self, main: Sequence[_Value], injected: Sequence[_Value], answer: Sequence[_Value]
    ) -> list[_Value]:
        """Return (L,) values of the completion's tokens, given those of its three parts."""
        return splice(main, self.kept_tokens, injected, answer)


def splice(
    main: Sequence[_Value], cut: int, injected: Sequence[_Value], answer: Sequence[_Value]
) -> list[_Value]:
    """Return the first `cut` values of `main`, then `injected`, then `answer`."""
    return [*main[:cut], *injected, *answer]
