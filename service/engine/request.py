"""The served model, and the request of a client to the engine."""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vllm.engine.protocol import EngineClient
from vllm.outputs import CompletionOutput
from vllm.sampling_params import SamplingParams

from service.clients.judge import JudgeClient
from service.load.probe_load import Load
from service.load.running import check_closable
from service.params import Requested, ThinkingRequest
from service.params.limits import ProbeLimits
from service.records.reasons import Abstained
from service.streams.inbox import AnswerNow, EndWithError, Inbox
from stepgrpo_core import ExitController, ExitReason, Outcome, ThinkingFormat
from stepgrpo_core.control.events import Cause
from stepgrpo_core.control.states import THINKS
from stepgrpo_core.families.prompts import PromptState
from stepgrpo_core.families.thinking import TokenizerFormat

__all__ = [
    "LAST_PRIORITY",
    "ClosableRequest",
    "EngineRequest",
    "Opening",
    "ServedModel",
    "cause_of",
    "own_budget",
    "served_model",
]

LAST_PRIORITY = 2**63 - 1  # vLLM's priorities are 64-bit integers
_CAUSES: Mapping[str, Cause] = {"length": "length", "abort": "abort"}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model behind the server."""

    engine: EngineClient
    tokenizer: Any
    writing: TokenizerFormat | None
    """The format of its thinking; None: it does not think."""
    load: Load
    probe_timeout: float = ProbeLimits().probe_timeout
    """Timeout of a probe in seconds."""
    priorities: bool = False
    """The scheduler uses priorities."""
    judge: JudgeClient | None = None
    """The judge of policy ``verifier`` behind a URL."""
    pairs: bool = False
    """Truncated reasoning is continued in the background to measure what exits saved."""

    scores_prompts: bool = True
    """Prompt log-probs are available. With adapters they are not: vLLM 0.31 has no adapter mapping
    for the rows of a prompt, and its CPU engine crashes as soon as two sequences run."""

    @property
    def thinking(self) -> ThinkingFormat | None:
        """The delimiters of its thinking; None: it does not think."""
        return self.writing.thinking if self.writing else None


@dataclass(frozen=True, slots=True)
class Opening:
    """The beginning of a completion."""

    standing: PromptState = PromptState.BEFORE
    """The state of the thinking at the end of the prompt."""
    implied: bool = False
    """The thinking begins without a start."""
    may_answer: bool = False
    """Text that then has no end either is an answer."""
    end: str = ""
    """The end of thinking in the prompt, if the response's parser needs it and does not see it."""

    def reported(self, outcome: Outcome) -> Outcome:
        """Return the outcome, without its exit reason if the thinking began in the prompt."""
        if self.standing is not PromptState.INSIDE:
            return outcome
        return dataclasses.replace(outcome, reason=ExitReason.NONE)


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One call of ``EngineClient.generate``, as made by vLLM's API layers."""

    request_id: str
    prompt: Mapping[str, Any]
    params: SamplingParams
    options: Mapping[str, Any]
    """The other arguments of the call."""
    stops_everywhere: bool = False
    """Stop strings apply to the reasoning as well, as in vLLM."""
    stop_ids: frozenset[int] = frozenset()
    """The client's stop tokens that apply to the answer."""
    opening: Opening = Opening()

    @property
    def prompt_ids(self) -> list[int]:
        """Token ids of the prompt."""
        ids: list[int] = self.prompt["prompt_token_ids"]
        return ids

    @property
    def has_ids(self) -> bool:
        """True if the prompt consists of token ids."""
        prompt = self.prompt
        return isinstance(prompt, Mapping) and isinstance(prompt.get("prompt_token_ids"), list)

    @property
    def stops(self) -> bool:
        """True if the client has set stop strings or stop tokens."""
        return bool(self.params.stop or self.stop_ids)

    def stopped(self, completion: CompletionOutput) -> bool:
        """Return whether a stop string or stop token ended the completion."""
        return isinstance(completion.stop_reason, str) or completion.stop_reason in self.stop_ids

    @property
    def adapter(self) -> str | None:
        """Name of the LoRA adapter; None for the model itself."""
        lora = self.options.get("lora_request")
        return str(lora.lora_name) if lora else None

    def without_adapter(self) -> "EngineRequest":
        """Return the request for the base model; salt, priority and rank stay."""
        options = {name: value for name, value in self.options.items() if name != "lora_request"}
        return dataclasses.replace(self, options=options)

    @property
    def has_grammar(self) -> bool:
        """True if structured outputs constrain the answer."""
        return self.params.structured_outputs is not None

    def probe_options(self, *, priorities: bool) -> dict[str, Any]:
        """Return the options that a probe inherits: adapter, data-parallel rank and priority.

        With `priorities`, the probe is scheduled one step later (lower values run earlier).
        """
        names = ("lora_request", "priority", "data_parallel_rank")
        inherited = {name: self.options[name] for name in names if name in self.options}
        if priorities:
            inherited["priority"] = min(inherited.get("priority", 0) + 1, LAST_PRIORITY)
        return inherited

    def answer_options(self) -> dict[str, Any]:
        """Return the options of the answer's stream; grammars apply at once after the thinking."""
        known = self.has_grammar or self.options.get("reasoning_ended") is not None
        return dict(self.options) | ({"reasoning_ended": True} if known else {})


class ClosableRequest:
    """A running request whose thinking can be closed, and which can be ended, from outside.

    `obstacle` returns the reason why its thinking cannot be closed, or None.
    """

    def __init__(
        self, controllers: Sequence[ExitController], obstacle: Callable[[], Abstained | None]
    ) -> None:
        self.closed = False
        self._controllers = controllers
        self._obstacle = obstacle
        self._inbox: Inbox = asyncio.Queue()

    def finish_thinking(self) -> int:
        """Close all thinking soon; return the number of sequences. Raises CannotFinish."""
        check_closable(self._obstacle())
        self._catch_up()
        count = sum(each.state in THINKS for each in self._controllers)
        if count:
            self._inbox.put_nowait((AnswerNow(), None))
        return count

    def abort(self, error: Exception) -> None:
        """End the request with this error soon."""
        self._inbox.put_nowait((EndWithError(error), None))

    def _catch_up(self) -> None:
        """Bring the controllers up to date; raise CannotFinish if the request cannot be closed."""


def cause_of(completion: CompletionOutput) -> Cause | None:
    """Return why a completion ended as the controller's `Cause`; None while it runs."""
    if completion.finish_reason is None:
        return None
    if completion.finish_reason == "stop":
        return "stop" if isinstance(completion.stop_reason, str) else "eos"
    return _CAUSES.get(completion.finish_reason, "stop")


def own_budget(
    request: EngineRequest, asked: ThinkingRequest
) -> tuple[EngineRequest, ThinkingRequest]:
    """Turn vLLM's `thinking_token_budget` into a policy budget, so only one of them closes."""
    tokens = request.params.thinking_token_budget
    if tokens is None:
        return request, asked
    params = request.params.clone()
    params.thinking_token_budget = None
    budget = asked.budget or Requested(tokens, "thinking_token_budget")
    return dataclasses.replace(request, params=params), dataclasses.replace(asked, budget=budget)


def served_model(
    inner: EngineClient, writing: TokenizerFormat | None, load: Load, **options: Any
) -> ServedModel:
    """Return the model of vLLM's engine client; `options` are further fields of `ServedModel`."""
    config = inner.vllm_config
    return ServedModel(
        inner,
        inner.renderer.tokenizer,
        writing,
        load,
        priorities=config.scheduler_config.policy == "priority",
        scores_prompts=config.lora_config is None,
        **options,
    )
