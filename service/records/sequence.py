"""What requests cost and saved: one record per sequence, kept while it runs.

Accounting rules. Delivered tokens are what the client received; probe and discarded tokens are
never among them. Everything the engine generated is in exactly one of delivered (less the
injected closing), discarded, aborted and probe tokens, so their sum equals the engine's own
counter. A saving is an estimate with its method and interval, net of probes, may be negative,
and exists only for sequences that completed.
"""

import contextvars
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from service.records.reasons import Abstained, Refusal
from service.records.requested import ThinkingRequest
from service.records.timeline import UNTIMED, Timeline, Untimed
from service.records.trust import Trust
from stepgrpo_core import Baseline, ExitReason, Outcome, Prediction
from stepgrpo_core.savings.holdout import Arm

__all__ = [
    "COMBINED",
    "HOLDOUT",
    "Follows",
    "RequestLedger",
    "Saved",
    "Seats",
    "SequenceRecord",
    "Status",
    "current_ledger",
]

Status = Literal["completed", "aborted", "failed"]
_STATUS: Mapping[str, Status] = {"abort": "aborted", "error": "failed"}
COMBINED = "combined"
"""Label of policies that requests join."""
HOLDOUT = "holdout"
"""Label of requests that a policy was withheld from."""


@dataclass(frozen=True, slots=True)
class Saved:
    """Tokens saved by one exit, by one method, with a 90 % prediction interval."""

    tokens: int
    low: int
    high: int
    net: int
    """`tokens` less the probe tokens they cost."""
    method: Literal["predicted"] = "predicted"
    stale: bool = False
    """Measured lengths no longer lie in predicted intervals as often as they should."""


@dataclass(slots=True)
class Follows:
    """What a sequence generated, for a paired run that follows it."""

    ids: list[int] = field(default_factory=list)
    """With which the run begins: of an exit's, all that the main stream had shown."""
    ended: bool = False
    """The run has ended by that."""
    answer: list[int] = field(default_factory=list)
    """Ids of the answer after an exit, or of the whole completion without one."""


LONG = 1000
"""Reasoning tokens of a thought that should hold a step marker."""


@dataclass(slots=True)
class SequenceRecord:
    """The account of one sequence."""

    index: int
    model_name: str
    policy: str
    prompt_tokens: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the policy, as the response echoes them."""
    adapter: str | None = None
    """Name of the LoRA adapter that was asked for; None for the model itself."""
    abstained: Abstained | None = None
    place: Arm | None = None
    """Where the holdout dealt its conversation; None: it takes no part."""
    outcome: Outcome | None = None
    status: Status | None = None
    finish_reason: str | None = None
    cut_at: int | None = None
    """Generated tokens before the exit; None without one."""
    generated_tokens: int = 0
    """By the main stream and the answer's, whatever became of them."""
    probe_tokens: int = 0
    refused_probes: Counter[Refusal] = field(default_factory=Counter)
    judge_tokens: int = 0
    """Of a judge behind a URL, prompts included: cost of another engine, in no other account."""
    delivered_tokens: int = 0
    injected_tokens: int = 0
    discarded_tokens: int = 0
    """Generated past the cut or a stop string."""
    stopped: bool = False
    """A stop string ended it."""
    saved: Saved | None = None
    timeline: Timeline | Untimed = UNTIMED
    joined: bool = False
    """Its policy is joined of several, and not the server's default."""
    group: int = 0
    """Random group of its conversation."""
    stratum: int = 0
    """Of its savings: requests that are dealt and served like it."""
    predicted: Prediction | None = None
    """Of its length, had it not been cut, before the interval is widened."""
    follows: Follows | None = None
    """None: no paired run will follow."""
    first: int = 0
    """Number of the response's choice that is the first of the same prompt."""

    @property
    def choice(self) -> int:
        """Number of its choice in the response."""
        return self.first + self.index

    @property
    def told(self) -> bool:
        """Whether it ended in a way that tells something about savings."""
        reason = self.outcome.reason if self.outcome else None
        closed = reason in (ExitReason.EOS_IN_THINKING, ExitReason.CLIENT)  # by no policy
        ended = self.status == "completed" and self.finish_reason == "stop" and not self.stopped
        return ended and reason is not None and not closed

    @property
    def acted(self) -> bool:
        """Whether a policy could have cut its thinking, which ended by itself."""
        natural = self.outcome is not None and self.outcome.reason is ExitReason.NATURAL
        return natural and not self.settings.get("shadow") and self.label not in ("none", HOLDOUT)

    @property
    def lacks_markers(self) -> bool:
        """Whether a long thought held no step marker: then they are hardly its model's words."""
        outcome = self.outcome
        return outcome is not None and outcome.steps == 1 and outcome.reasoning_tokens >= LONG

    @property
    def cost(self) -> int:
        """Tokens that the engine generated beyond the completion."""
        return self.probe_tokens + self.discarded_tokens

    @property
    def label(self) -> str:
        """The policy as metrics have it. Responses do not say who was held out."""
        return HOLDOUT if self.place is not None and self.place.control else self.counted_as

    @property
    def counted_as(self) -> str:
        """The policy in sums and metrics: clients join them in any order, and series are few."""
        return COMBINED if self.joined else self.policy

    @property
    def completion_tokens(self) -> int:
        """What the completion is made of, delivered or not yet."""
        return self.generated_tokens - self.discarded_tokens + self.injected_tokens

    @property
    def aborted_tokens(self) -> int:
        """Generated, but neither delivered nor discarded: the client had left."""
        return self.completion_tokens - self.delivered_tokens

    def deliver(self, completion: Any, *, adds: bool, stopped: bool) -> None:
        """Enter vLLM's output of this sequence that is about to go out: it `adds` to those before,
        or repeats them, and may be `stopped` by what its request named."""
        before = self.delivered_tokens if adds else 0
        self.delivered_tokens = before + len(completion.token_ids)
        if self.timeline.texts is not None:
            self.timeline.texts.append(completion.text)
        if completion.finish_reason is not None:
            self.finish_reason = completion.finish_reason
            self.stopped = stopped
            self.status = _STATUS.get(completion.finish_reason, "completed")

    def settle(self, baseline: Baseline | None, trust: Trust) -> None:
        """Estimate the saving, if there is a basis for one."""
        if baseline is None or self.policy == "none" or not self.told:
            return
        if self.cut_at is None:
            # Ended by itself under a policy that may exit: nothing was cut, probes were spent.
            if self.outcome and self.outcome.reason is ExitReason.NATURAL:
                self.saved = Saved(0, 0, 0, -self.probe_tokens)
            return
        self.predicted = self._predict(baseline, self.cut_at)
        if self.predicted is not None:
            shown = trust.shown(self.predicted)
            saved = round(shown.tokens) - self.completion_tokens
            self.saved = Saved(
                tokens=saved,
                low=round(shown.low) - self.completion_tokens,
                high=round(shown.high) - self.completion_tokens,
                net=saved - self.probe_tokens,
                stale=trust.stale,
            )

    def _predict(self, baseline: Baseline, cut_at: int) -> Prediction | None:
        """What it would have taken, had it not been cut."""
        assert self.outcome is not None
        tried = self.outcome.reason is ExitReason.CONFIDENT  # by a trial, at a step boundary
        return baseline.predict(
            self.prompt_tokens,
            longer_than=cut_at,
            steps=self.outcome.steps,
            confidence=self.outcome.confidence if tried else None,
        )

    def as_block(self) -> dict[str, Any]:
        """The ``stepgrpo`` block of the response."""
        outcome = self.outcome
        if outcome is None:
            return self._uncounted()
        block: dict[str, Any] = {
            "policy": self.policy,
            "settings": dict(self.settings),
            "exit_reason": str(outcome.reason),
            "steps": outcome.steps,
            "reasoning_tokens": outcome.reasoning_tokens,
            "probes": outcome.probes,
            "probe_tokens": self.probe_tokens,
            "cut_at": self.cut_at,
            "injected_tokens": self.injected_tokens,
            "discarded_tokens": self.discarded_tokens,
            "confidence": None if outcome.confidence is None else round(outcome.confidence, 4),
            "saved": None
            if self.saved is None
            else {name: getattr(self.saved, name) for name in Saved.__slots__},
        }
        if outcome.shadow_reason is not None:
            block["shadow_reason"] = str(outcome.shadow_reason)
        if outcome.failed_probes:
            block["failed_probes"] = outcome.failed_probes
        if self.abstained is not None:
            block["abstained"] = str(self.abstained)
        if self.judge_tokens:
            block["judge_tokens"] = self.judge_tokens
        if self.refused_probes:
            block["refused_probes"] = self.refused_probes.total()
        return block

    def _uncounted(self) -> dict[str, Any]:
        """The block where nothing is known of the thinking, and why."""
        unknown = ("exit_reason", "steps", "reasoning_tokens", "cut_at", "confidence", "saved")
        block = {"policy": self.policy, "settings": dict(self.settings)}
        cost = {"injected_tokens": 0, "discarded_tokens": self.discarded_tokens}
        known = {"probes": 0, "probe_tokens": 0, "abstained": str(self.abstained)}
        return block | dict.fromkeys(unknown) | cost | known

    @property
    def has_block(self) -> bool:
        """Whether there is something to say: what came of it, or why nothing is known."""
        ended = self.status is not None and self.abstained is not None
        return self.outcome is not None or ended


@dataclass(slots=True)
class Seats:
    """Sequences for which admission has let one HTTP request in."""

    granted: int = 0
    claimed: int = 0
    """By the engine's calls of ``generate``, started or not."""
    started: int = 0


@dataclass(slots=True)
class RequestLedger:
    """The sequences of one HTTP request, and what its body said outside vLLM's schema."""

    caller: bytes = b""
    """A digest of the API key that asks."""
    arrived: float = field(default_factory=time.monotonic)
    sequences: list[SequenceRecord] = field(default_factory=list)
    asked: ThinkingRequest = field(default_factory=ThinkingRequest)
    """What the body asks of the thinking outside ``vllm_xargs``."""
    conversations: Sequence[bytes] = ()
    """What the body's conversation began with, or each of a batch; empty where nothing is held
    out."""
    offers_tools: bool = False
    """The answer may be a call."""
    wants_usage: bool = False
    """The body asks for the usage of its stream."""
    seats: Seats = field(default_factory=Seats)
    on_end: Callable[["RequestLedger"], None] | None = None
    """Takes back the seats that were not used."""
    batch: bool = False
    """Every prompt is a conversation, and one choice of the response."""
    prompts: int = 0
    """That the engine was asked for."""
    ids: set[str] = field(default_factory=set)
    """By which its client may know the response."""

    def next_prompt(self) -> int:
        """Number of the next prompt, in the order of the body's."""
        self.prompts += 1
        return self.prompts - 1

    def conversation(self, prompt: int) -> bytes | None:
        """The beginning of a prompt's conversation; all prompts of an ordinary body share one."""
        places = len(self.conversations)
        return self.conversations[min(prompt, places - 1)] if places else None

    def end(self) -> None:
        """The response is out, or nobody waits for it."""
        if self.on_end is not None:
            self.on_end(self)

    @property
    def reasoning_tokens(self) -> int:
        """Over all sequences, for ``usage``."""
        return sum(each.outcome.reasoning_tokens for each in self.sequences if each.outcome)

    @property
    def knows(self) -> bool:
        """Whether anything is known of its thinking; also where the engine was not asked."""
        return not self.sequences or any(each.outcome for each in self.sequences)

    @property
    def tells(self) -> bool:
        """Whether a policy acted, or was to: without one responses are vLLM's, but for the block
        at their top."""
        return any(each.policy != "none" or each.abstained for each in self.sequences)

    def usage(self) -> dict[str, int]:
        """Of what was delivered, where vLLM has not come to count it: prompts once for all their
        sequences, as it does."""
        prompt = sum(each.prompt_tokens for each in self.sequences if each.index == 0)
        completion = sum(each.delivered_tokens for each in self.sequences)
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion,
            "completion_tokens": completion,
        }

    def as_block(self) -> dict[str, Any] | None:
        """The response's block: flat for one sequence, a list under ``choices`` for several."""
        done = sorted((r for r in self.sequences if r.has_block), key=lambda r: r.choice)
        if not done:
            return None
        if len(done) == 1:
            return done[0].as_block()
        return {
            "policy": done[0].policy,
            "choices": [{"index": index, **r.as_block()} for index, r in enumerate(done)],
        }


current_ledger: contextvars.ContextVar[RequestLedger | None] = contextvars.ContextVar(
    "current_ledger", default=None
)
"""The ledger of the HTTP request being served, set by the reporting middleware."""
