"""The exit controller decides when to probe, when to end the thinking, and what to emit.

One controller serves one sequence. It is sans-IO: a driver feeds it events (tokens, probe answers,
an end) and carries out the commands that it returns (see `events`). It knows no engine, clock or
socket, so a rollout and a server that feed it equal tokens emit equal completions.

A decision belongs to a *position*: the number of generated tokens that an exit there would keep
(see `boundaries`). The main stream keeps generating while probes are in flight. Decisions of all
policies are made in the order of positions, whatever the order in which answers arrive, and the
first policy to fire wins. Emitted tokens are therefore a function of the generated tokens and the
answers, never of time or load. Tokens that an open decision could still cut off are held back. The
emitted sequence is always a prefix of the generated tokens, then the closing tokens, then the
answer. `FinishThinking` is the one exception: it takes effect at the position where it arrives.
"""

import math
from collections import deque

from stepgrpo_core.control.boundaries import BoundaryFinder, Found
from stepgrpo_core.control.edges import Ending
from stepgrpo_core.control.events import (
    CancelProbe,
    Cause,
    CloseThinking,
    Command,
    Emit,
    Event,
    Finished,
    Outcome,
    ProbeAnswered,
    ProbeRefused,
    StartProbe,
    ThinkingFormat,
    Tokens,
)
from stepgrpo_core.control.matching import ThinkTokenMatcher
from stepgrpo_core.control.policy_slots import (
    Guard,
    OpenPlaces,
    PendingDecision,
    PolicySlot,
    kinds_of,
    unguarded,
)
from stepgrpo_core.control.states import REASONS, TRANSITIONS, Signal, State, reason_at_end
from stepgrpo_core.errors import ProtocolViolation
from stepgrpo_core.policies import (
    Answer,
    Boundary,
    ExitReason,
    ExitSettings,
    Matcher,
    ProbeSpec,
    Verdict,
    build_policy,
)
from stepgrpo_core.policies.probes import check_answer

__all__ = ["ExitController"]


class ExitController:
    """Controls one sequence.

    `max_tokens` limits the emitted tokens (None: no limit). `thinking_open`: the prompt ends in
    ``<think>``. `thinking_implied`: thinking begins without a start. `may_answer`: text with
    neither start nor end is an answer. `matcher` belongs to policy ``pattern``. `guard` runs a
    policy's decision and raises if it takes too long. Raises InvalidSetting for unknown policies.
    """

    def __init__(
        self,
        settings: ExitSettings,
        thinking: ThinkingFormat,
        *,
        max_tokens: int | None = None,
        thinking_open: bool = False,
        thinking_implied: bool = False,
        may_answer: bool = False,
        matcher: Matcher | None = None,
        guard: Guard = unguarded,
    ) -> None:
        self.state = State.THINKING if thinking_open else State.PRELUDE
        self.reason: ExitReason | None = None
        self.fault: Exception | None = None
        """The exception that a policy raised; after it no policy acts on this sequence."""
        self._settings, self._thinking = settings, thinking
        self._marks = ThinkTokenMatcher(thinking, implied=thinking_implied, may_answer=may_answer)
        self._ending = Ending(thinking)
        self.max_tokens, self._limit = max_tokens, math.inf if max_tokens is None else max_tokens
        self._slots = [
            PolicySlot(policy, settings, guard) for policy in build_policy(settings, matcher)
        ]
        self._finder = BoundaryFinder(settings.markers, kinds_of(self._slots), settings.marker_gap)
        self._open = OpenPlaces()
        self._begin = 0  # first thinking token
        self._received = self._emitted = 0  # tokens of the current stream
        self._thinking_end: int | None = None  # index of the token that ended it, once seen
        self._finished: Cause | None = None
        self._pending: deque[PendingDecision] = deque()
        self.asked: list[PendingDecision] = []  # all probes, by number
        self._failures = self._refused = 0
        self._finish_wanted = False  # `FinishThinking` arrived
        self._fired = False  # a policy without a probe fired; its decision is pending
        self._exit: int | None = None  # position
        self._confidences: list[float] = []
        self._shadow_reason: ExitReason | None = None

    def receive(self, *events: Event) -> list[Command]:
        """Take events that came together; return the commands to carry out, in order.

        Raises ProtocolViolation for an event that the state does not allow.
        """
        commands: list[Command] = []
        for event in events:
            if isinstance(event, Tokens):
                self._take_tokens(event, commands)
            elif isinstance(event, ProbeAnswered | ProbeRefused):
                self._take_answer(event)
            elif isinstance(event, Finished):
                self._take_end(event, commands)
            else:
                self._finish_wanted = True
        self._settle(commands)
        return commands

    def would_answer(self, token: int, text: str) -> bool:
        """Return whether this token, if it comes next, is part of the answer."""
        if self.state is State.PRELUDE:
            return self._marks.would_answer(token, text)
        return not self._thinks() or self._marks.may_be_answer(token)

    @property
    def outcome(self) -> Outcome:
        """The outcome of a sequence that is DONE; raises ProtocolViolation before."""
        if self.reason is None or self.state is not State.DONE:
            raise ProtocolViolation(f"outcome asked for in state {self.state.value}")
        cut = None if self._exit is None else self._exit - self._begin
        ended = self._thinking_end is not None
        counted = self._finder.account(self._thinking, cut=cut, ended=ended)
        steps, tokens = (0, 0) if self._was_answer() else counted
        return Outcome(
            reason=self.reason,
            steps=steps,
            reasoning_tokens=tokens,
            probes=len(self.asked) - self._refused,
            failed_probes=self._failures,
            confidences=tuple(self._confidences),
            shadow_reason=self._shadow_reason,
            policy_failed=self.fault is not None,
        )

    # Events.

    def _take_tokens(self, event: Tokens, commands: list[Command]) -> None:
        if self.state is State.DONE or self._finished:
            raise ProtocolViolation("tokens after the end of the stream")
        ids, texts, place = event.ids, event.texts, 0
        if len(ids) != len(texts):
            raise ProtocolViolation(f"{len(ids)} tokens came with {len(texts)} texts")
        while place < len(ids) and (self._thinks() or self.state is State.PRELUDE):
            run = 0
            if self.state is State.PRELUDE:
                self._take_prelude(ids[place], texts[place], commands)
            elif not (run := self._finder.skip(texts, place, self._ending.thought(ids, place))):
                self._take_thinking(ids[place], texts[place], commands)
            self._received += run or 1
            place += run or 1
        self._received += len(ids) - place  # the answer decides nothing

    def _take_prelude(self, token: int, text: str, commands: list[Command]) -> None:
        signal = self._marks.take(token, text)
        if signal is None:
            return
        self._move(signal, ExitReason.NONE)
        if signal is Signal.THINK_START:
            self._begin = self._received + 1
        elif signal is Signal.UNOPENED:
            for held in self._marks.held:  # only the last of them can end the thinking
                self._take_thinking(*held, commands)

    def _take_thinking(self, token: int, text: str, commands: list[Command]) -> None:
        thought, ended = self._ending.take(token, text)
        found = [each for one in thought for each in self._finder.feed(one)]
        if ended:
            self._thinking_end = self._received
            found += self._finder.finish()
        for each in found:
            self._consider(each, commands)

    def _take_answer(self, event: ProbeAnswered | ProbeRefused) -> None:
        if not 0 <= event.probe < len(self.asked):
            raise ProtocolViolation(f"probe {event.probe} was never started")
        asked = self.asked[event.probe]
        assert asked.spec is not None
        waits = asked in self._pending  # or was cancelled
        if isinstance(event, ProbeRefused):
            self._refused += 1
            if waits:
                asked.slot.not_asked(asked.spec)
                self._pending.remove(asked)
            return
        check_answer(asked.spec, event.answer)
        if waits:
            asked.answered, asked.answer = True, event.answer

    def _take_end(self, event: Finished, commands: list[Command]) -> None:
        aborted = event.cause == "abort"  # may come at any time
        if self.state is State.DONE or (self._finished and not aborted):
            raise ProtocolViolation("the stream ended twice")
        if self._thinks():
            rest = [each for text in self._ending.rest() for each in self._finder.feed(text)]
            for found in (*rest, *self._finder.finish()):
                if not aborted:
                    self._consider(found, commands)
        self._finished = event.cause
        if aborted:
            self._cancel_probes(commands)

    # Decisions.

    def _consider(self, found: Found, commands: list[Command]) -> None:
        """Let every policy that acts at this boundary decide or probe, within its limits."""
        kept = found.tokens
        position = self._begin + kept
        if kept < 1 or self._room(position) < max(self._settings.answer_reserve, 1):
            return
        for slot in self._slots:
            needs = slot.needs
            if found.place not in needs.kinds or kept < needs.min_tokens or self._settled_by():
                continue
            if needs.probe is None:
                self._decide_at_once(slot, self._boundary(found, slot), commands)
            else:
                self._ask(slot, needs.probe, self._boundary(found, slot), commands)

    def _boundary(self, found: Found, slot: PolicySlot) -> Boundary:
        text = ""
        if slot.needs.probe is None:
            text, slot.read = self._finder.text(slot.read, found.tokens), found.tokens
        return Boundary(
            position=self._begin + found.tokens,
            steps=self._finder.steps_before(found.tokens),
            reasoning_tokens=found.tokens,
            kind=found.place,
            generated=found.generated,
            room=self._room(self._begin + found.generated) - self._settings.answer_reserve,
            text=text,
        )

    def _decide_at_once(
        self, slot: PolicySlot, boundary: Boundary, commands: list[Command]
    ) -> None:
        verdict = self._verdict(slot, boundary, None, commands)
        if verdict is not None and verdict.reason is not None:
            self._fired = True
            self._pending.append(PendingDecision(boundary, slot, answered=True, verdict=verdict))

    def _ask(
        self, slot: PolicySlot, spec: ProbeSpec, boundary: Boundary, commands: list[Command]
    ) -> None:
        if not slot.may_ask(spec, boundary):
            return
        pending = PendingDecision(boundary, slot, len(self.asked), spec)
        commands.append(StartProbe(len(self.asked), boundary.position, spec))
        self._pending.append(pending)
        self.asked.append(pending)
        slot.asked(spec, boundary)

    def _settled_by(self) -> bool:
        """Return True if a decision is certain, so later boundaries do not matter."""
        return self._fired or self._shadow_reason is not None or self.fault is not None

    def _settle(self, commands: list[Command]) -> None:
        """Take every decision that is due, then emit what no decision can cut off."""
        while self._pending and self._pending[0].answered:
            self._decide(self._pending.popleft(), commands)
        self._finish_thinking(commands)
        if (count := self._frontier() - self._emitted) > 0:
            commands.append(Emit(count))
            self._emitted += count
        if self._pending or self.state is State.DONE:
            return
        if self._thinking_end is not None and self.state is State.THINKING:
            self._move(Signal.THINK_END, ExitReason.NATURAL)
        if self._finished == "eos" and self._closes_eos():
            self._close(self._received - 1, Signal.EOS, ExitReason.EOS_IN_THINKING, commands)
        elif self._was_answer():
            self._move(Signal.FINISHED, ExitReason.NONE)
        elif self._finished:
            self._move(Signal.FINISHED, reason_at_end(self._finished, self.state))

    def _decide(self, pending: PendingDecision, commands: list[Command]) -> None:
        verdict = pending.verdict = pending.verdict or self._judged(pending, commands)
        if verdict is None:
            return
        if verdict.confidence is not None:
            self._confidences.append(verdict.confidence)
        if verdict.reason is None:
            return
        if self._settings.shadow:
            self._shadow_reason = verdict.reason
            self._cancel_probes(commands)
        else:
            self._close(pending.boundary.position, Signal.EXIT, verdict.reason, commands)

    def _judged(self, pending: PendingDecision, commands: list[Command]) -> Verdict | None:
        """Return the verdict on a probe's answer; None if the probe or the policy failed."""
        slot = pending.slot
        if pending.answer is not None:
            slot.failures_in_a_row = 0
            return self._verdict(slot, pending.boundary, pending.answer, commands)
        self._failures += 1
        if slot.fails():
            # Had the failures arrived sooner, these probes would not have been started.
            self._cancel_probes(commands, slot)
        return None

    def _verdict(
        self, slot: PolicySlot, boundary: Boundary, answer: Answer | None, commands: list[Command]
    ) -> Verdict | None:
        """Return the policy's verdict; None if it fails, and then no policy acts any more."""
        try:
            return slot.decide(boundary, answer)
        except Exception as fault:  # noqa: BLE001 - policies may raise anything
            self.fault = fault
            self._cancel_probes(commands)
            self._slots = []
        return None

    def _finish_thinking(self, commands: list[Command]) -> None:
        """Close after the last complete token, if the client asked for it and it is possible."""
        position = self._begin + self._finder.complete
        possible = self._finish_wanted and self._thinks() and not self._finished
        if possible and position >= max(self._emitted, 1) and self._room(position) >= 1:
            self._close(position, Signal.FINISH, ExitReason.CLIENT, commands)

    def _closes_eos(self) -> bool:
        settings, position = self._settings, self._received - 1
        return (
            self._thinks()
            and not self._was_answer()
            and settings.close_on_eos
            and settings.policy != "none"
            and not settings.shadow
            and position >= max(self._emitted, self._begin)
            and self._room(position) >= 1
        )

    def _close(
        self, position: int, signal: Signal, reason: ExitReason, commands: list[Command]
    ) -> None:
        self._cancel_probes(commands)
        if position > self._emitted:
            commands.append(Emit(position - self._emitted))
        commands.append(CloseThinking(position, self._thinking.closing_ids, reason))
        self._move(signal, reason)
        self._exit = position
        self._received = self._emitted = 0  # the answer is a new stream
        self._finished = None

    def _cancel_probes(self, commands: list[Command], slot: PolicySlot | None = None) -> None:
        """Drop the pending decisions of one policy, or of all."""
        dropped = [each for each in self._pending if slot in (None, each.slot)]
        commands += [CancelProbe(each.probe) for each in dropped if each.probe is not None]
        self._pending = deque(each for each in self._pending if each not in dropped)

    def _frontier(self) -> int:
        """Return how many tokens of the current stream no decision can cut off."""
        if self._settings.shadow:
            return self._received
        if self._pending:
            return self._pending[0].boundary.position
        if self.state is State.PRELUDE and self._marks.implied and not self._finished:
            return 0 if self._open.of(self._slots) else self._received  # it may be cut as thinking
        if self._finished == "eos" and self._closes_eos():
            return self._received - 1
        if self._thinks() and not self._finished:
            return self._begin + self._finder.decided(self._open.of(self._slots))
        return self._received

    def _thinks(self) -> bool:
        return self.state is State.THINKING and self._thinking_end is None

    def _was_answer(self) -> bool:
        """Return True if the supposed thinking was an answer: it ended without start and end."""
        no_end = self._thinking_end is self._exit is None
        return no_end and self._marks.doubtful and self._finished in ("eos", "stop")

    def _room(self, position: int) -> float:
        """Return the tokens left for an answer after a close at `position`; -inf: no close."""
        cost = self._thinking.cost
        return self._limit - position - cost if cost < math.inf else -math.inf

    def _move(self, signal: Signal, reason: ExitReason | None = None) -> None:
        allowed = REASONS.get((self.state, signal))
        if allowed is not None:
            assert reason in allowed  # `PolicySlot.decide` has checked a policy's reason
            self.reason = reason
        self.state = TRANSITIONS[self.state][signal]
