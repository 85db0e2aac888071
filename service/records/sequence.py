"""Token accounting of requests: one record per sequence, updated while it runs.

Accounting rules. Delivered tokens are what the client received; they never include probe tokens or
discarded tokens. Every token that the engine generates is counted in exactly one of delivered
(without forced tokens), discarded, aborted and probe tokens, so their sum equals the engine's own
counter. Saved tokens are an estimate with a method and an interval, net of probes. They may be
negative, and exist only for sequences that completed.
"""

import contextvars
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from service.records.reasons import Abstained, Refusal
from service.records.requested import ThinkingRequest
from service.records.timeline import Timeline
from service.records.trust import Trust
from stepgrpo_core import Baseline, ExitReason, Outcome, Prediction
from stepgrpo_core.savings.holdout import Arm

__all__ = [
    "COMBINED",
    "HOLDOUT",
    "AdmissionSlots",
    "ContinuationInput",
    "RequestContext",
    "Saved",
    "SequenceRecord",
    "Status",
    "current_request",
]

Status = Literal["completed", "aborted", "failed"]
_STATUS: Mapping[str, Status] = {"abort": "aborted", "error": "failed"}
COMBINED = "combined"
"""Label of policies that a request combined itself."""
HOLDOUT = "holdout"
"""Label of requests in the control arm."""


@dataclass(frozen=True, slots=True)
class Saved:
    """Tokens saved by one exit, by one method, with a 90 % prediction interval."""

    tokens: int
    low: int
    high: int
    net: int
    """`tokens` minus probe tokens."""
    method: Literal["predicted"] = "predicted"
    stale: bool = False
    """Prediction intervals no longer cover measured lengths as often as they should."""


@dataclass(slots=True)
class ContinuationInput:
    """Generated tokens that a paired continuation starts from."""

    ids: list[int] = field(default_factory=list)
    """Prefix of the continuation; after an exit, every token that the main stream generated."""
    ended: bool = False
    """The prefix is already a complete generation."""
    answer: list[int] = field(default_factory=list)
    """Token ids of the answer after an exit, or of the whole completion without one."""


LONG = 1000
"""Reasoning tokens above which thinking is expected to contain a step marker."""


@dataclass(slots=True)
class SequenceRecord:
    """Accounting of one sequence."""

    index: int
    model_name: str
    policy: str
    prompt_tokens: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Policy settings, as the response echoes them."""
    adapter: str | None = None
    """Name of the requested LoRA adapter; None for the model itself."""
    abstained: Abstained | None = None
    arm: Arm | None = None
    """Experiment arm of its conversation; None if the request is not part of the experiment."""
    outcome: Outcome | None = None
    status: Status | None = None
    finish_reason: str | None = None
    cut_at: int | None = None
    """Generated tokens before the exit; None without an exit."""
    generated_tokens: int = 0
    """Tokens of the main and the answer stream, delivered or not."""
    probe_tokens: int = 0
    refused_probes: Counter[Refusal] = field(default_factory=Counter)
    judge_tokens: int = 0
    """Tokens of a judge behind a URL, prompts included. Another engine generates them, so no other
    count includes them."""
    delivered_tokens: int = 0
    injected_tokens: int = 0
    discarded_tokens: int = 0
    """Tokens generated after the exit or a stop string."""
    stopped: bool = False
    """A stop string ended it."""
    saved: Saved | None = None
    timeline: Timeline = field(default_factory=Timeline)
    joined: bool = False
    """The request combined several policies that are not the server's default."""
    group: int = 0
    """Random group of its conversation."""
    stratum: int = 0
    """Stratum of its savings: requests assigned and served under equal settings."""
    predicted: Prediction | None = None
    """Predicted length without the exit, before its interval is widened."""
    continuation: ContinuationInput | None = None
    """Input of a paired continuation; None if there will be none."""
    first: int = 0
    """Index of the first choice of the same prompt in the response."""

    @property
    def choice(self) -> int:
        """Index of its choice in the response."""
        return self.first + self.index

    @property
    def counts_for_savings(self) -> bool:
        """True if it ended in a way that is informative about savings."""
        reason = self.outcome.reason if self.outcome else None
        closed = reason in (ExitReason.EOS_IN_THINKING, ExitReason.CLIENT)  # not closed by a policy
        ended = self.status == "completed" and self.finish_reason == "stop" and not self.stopped
        return ended and reason is not None and not closed

    @property
    def could_have_exited(self) -> bool:
        """True if a policy could have exited, but the thinking ended naturally."""
        natural = self.outcome is not None and self.outcome.reason is ExitReason.NATURAL
        return natural and not self.settings.get("shadow") and self.label not in ("none", HOLDOUT)

    @property
    def lacks_markers(self) -> bool:
        """True if long thinking had no step marker: the markers probably do not fit the model."""
        outcome = self.outcome
        return outcome is not None and outcome.steps == 1 and outcome.reasoning_tokens >= LONG

    @property
    def cost(self) -> int:
        """Generated tokens that are not part of the completion."""
        return self.probe_tokens + self.discarded_tokens

    @property
    def label(self) -> str:
        """Policy label in metrics. Responses do not reveal the control arm."""
        return HOLDOUT if self.arm is not None and self.arm.control else self.counted_as

    @property
    def counted_as(self) -> str:
        """Policy label in sums: combined policies share one, because clients can combine them
        freely and the number of series must stay small."""
        return COMBINED if self.joined else self.policy

    @property
    def completion_tokens(self) -> int:
        """Tokens of the completion, delivered or not."""
        return self.generated_tokens - self.discarded_tokens + self.injected_tokens

    @property
    def answer_tokens(self) -> int:
        """Delivered tokens that are not reasoning."""
        reasoning = self.outcome.reasoning_tokens if self.outcome else 0
        return max(self.delivered_tokens - reasoning, 0)

    @property
    def aborted_tokens(self) -> int:
        """Tokens neither delivered nor discarded, because the client had disconnected."""
        return self.completion_tokens - self.delivered_tokens

    def deliver(self, completion: Any, *, delta: bool, stopped: bool) -> None:
        """Count an output of vLLM's just before it is sent. With `delta`, it extends earlier
        outputs; otherwise it repeats them. `stopped` says that a stop string ended it."""
        before = self.delivered_tokens if delta else 0
        self.delivered_tokens = before + len(completion.token_ids)
        self.timeline.delivered(completion.text)
        if completion.finish_reason is not None:
            self.finish_reason = completion.finish_reason
            self.stopped = stopped
            self.status = _STATUS.get(completion.finish_reason, "completed")

    def settle(self, baseline: Baseline | None, trust: Trust) -> None:
        """Estimate the saved tokens if `baseline` allows it."""
        if baseline is None or self.policy == "none" or not self.counts_for_savings:
            return
        if self.cut_at is None:
            # The thinking ended naturally: nothing was saved, but probes cost tokens.
            if self.outcome and self.outcome.reason is ExitReason.NATURAL:
                self.saved = Saved(0, 0, 0, -self.probe_tokens)
            return
        self.predicted = self._predict(baseline, self.cut_at)
        if self.predicted is not None:
            widened = trust.widen(self.predicted)
            saved = round(widened.tokens) - self.completion_tokens
            self.saved = Saved(
                tokens=saved,
                low=round(widened.low) - self.completion_tokens,
                high=round(widened.high) - self.completion_tokens,
                net=saved - self.probe_tokens,
                stale=trust.stale,
            )

    def _predict(self, baseline: Baseline, cut_at: int) -> Prediction | None:
        """Predict the length without the exit."""
        assert self.outcome is not None
        probed = self.outcome.reason is ExitReason.CONFIDENT  # a probe at a step boundary decided
        return baseline.predict(
            self.prompt_tokens,
            longer_than=cut_at,
            steps=self.outcome.steps,
            confidence=self.outcome.confidence if probed else None,
        )

    def as_block(self) -> dict[str, Any]:
        """Return the ``stepgrpo`` block of the response."""
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
        """Return the block of a sequence whose thinking was not tracked, with the reason."""
        unknown = ("exit_reason", "steps", "reasoning_tokens", "cut_at", "confidence", "saved")
        block = {"policy": self.policy, "settings": dict(self.settings)}
        cost = {"injected_tokens": 0, "discarded_tokens": self.discarded_tokens}
        known = {"probes": 0, "probe_tokens": 0, "abstained": str(self.abstained)}
        return block | dict.fromkeys(unknown) | cost | known

    @property
    def has_block(self) -> bool:
        """True if there is anything to report: an outcome, or why there is none."""
        ended = self.status is not None and self.abstained is not None
        return self.outcome is not None or ended


@dataclass(slots=True)
class AdmissionSlots:
    """Sequences that admission control admitted for one HTTP request."""

    granted: int = 0
    claimed: int = 0
    """Sequences of calls of ``generate``, started or not."""
    started: int = 0


@dataclass(slots=True)
class RequestContext:
    """One HTTP request: its sequences, and the parameters outside vLLM's schema."""

    caller: bytes = b""
    """Digest of the API key."""
    arrived: float = field(default_factory=time.monotonic)
    sequences: list[SequenceRecord] = field(default_factory=list)
    thinking_request: ThinkingRequest = field(default_factory=ThinkingRequest)
    """Thinking parameters of the body outside ``vllm_xargs``."""
    conversations: Sequence[bytes] = ()
    """Conversation keys of the body, one or one per batch item; empty without a holdout."""
    offers_tools: bool = False
    """The reply may be a tool call."""
    wants_usage: bool = False
    """The body asks for usage in its stream."""
    events: list[dict[str, Any]] | None = None
    """Events that wait for the next chunk of the stream; None if the body does not ask for them."""
    slots: AdmissionSlots = field(default_factory=AdmissionSlots)
    on_end: Callable[["RequestContext"], None] | None = None
    """Callback of `end` that releases unused admission slots."""
    batch: bool = False
    """Each prompt is a conversation of its own and one choice of the response."""
    prompts: int = 0
    """Prompts passed to the engine so far."""
    ids: set[str] = field(default_factory=set)
    """Ids by which the client may know the response."""

    @property
    def all_run(self) -> bool:
        """True if the engine has begun the request and none of its sequences has ended."""
        for each in self.sequences:
            if each.status is not None or each.outcome is not None:
                return False
        return bool(self.sequences)

    def next_prompt(self) -> int:
        """Return the index of the next prompt, in the order of the body."""
        self.prompts += 1
        return self.prompts - 1

    def conversation(self, prompt: int) -> bytes | None:
        """Return the conversation key of a prompt; all prompts of a non-batch body share one."""
        last = len(self.conversations) - 1
        return self.conversations[min(prompt, last)] if last >= 0 else None

    def end(self) -> None:
        """Release what the request holds: the response is sent, or the client has disconnected."""
        if self.on_end is not None:
            self.on_end(self)

    @property
    def reasoning_tokens(self) -> int:
        """Reasoning tokens of all sequences, for ``usage``."""
        return sum(each.outcome.reasoning_tokens for each in self.sequences if each.outcome)

    @property
    def reasoning_known(self) -> bool:
        """True if any thinking was tracked, or if the engine was not called."""
        return not self.sequences or any(each.outcome for each in self.sequences)

    @property
    def policy_involved(self) -> bool:
        """True if a policy acted or abstained. If not, the response is vLLM's except for the block
        at its top level."""
        return any(each.policy != "none" or each.abstained for each in self.sequences)

    def usage(self) -> dict[str, int]:
        """Return usage for a stream that ended before vLLM reported it; each prompt counts once."""
        prompt = sum(each.prompt_tokens for each in self.sequences if each.index == 0)
        completion = sum(each.delivered_tokens for each in self.sequences)
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion,
            "completion_tokens": completion,
        }

    def as_block(self) -> dict[str, Any] | None:
        """Return the response's block: flat for one sequence, a ``choices`` list for several."""
        done = sorted((r for r in self.sequences if r.has_block), key=lambda r: r.choice)
        if not done:
            return None
        if len(done) == 1:
            return done[0].as_block()
        return {
            "policy": done[0].policy,
            "choices": [{"index": index, **r.as_block()} for index, r in enumerate(done)],
        }


current_request: contextvars.ContextVar[RequestContext | None] = contextvars.ContextVar(
    "current_request", default=None
)
"""Context of the HTTP request being served, set by the reporting middleware."""
