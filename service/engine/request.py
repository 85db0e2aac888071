"""What is served, and what a client asked of it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm.engine.protocol import EngineClient
from vllm.outputs import CompletionOutput
from vllm.sampling_params import SamplingParams

from service.clients.judge import JudgeClient
from service.load.probe_load import Load
from service.params import Requested, ThinkingRequest
from service.params.limits import ProbeLimits
from stepgrpo_core import ExitReason, Outcome, ThinkingFormat
from stepgrpo_core.control.events import Cause
from stepgrpo_core.families.prompts import PromptState
from stepgrpo_core.families.thinking import TokenizerFormat

__all__ = [
    "LAST_PRIORITY",
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
    """None: it does not think."""
    load: Load
    probe_timeout: float = ProbeLimits().probe_timeout
    """Seconds."""
    priorities: bool = False
    """The scheduler looks at priorities."""
    judge: JudgeClient | None = None
    """Of policy ``verifier``, behind a URL."""
    pairs: bool = False
    """What exits cut off is gone on with, to see what they saved."""

    scores_prompts: bool = True
    """Prompt log-probs can be had. Not with adapters: for the rows of a prompt vLLM 0.31 has no
    mapping to them, and on CPUs its engine dies of it as soon as two sequences run."""

    @property
    def thinking(self) -> ThinkingFormat | None:
        """Its tokens of thinking."""
        return self.writing.thinking if self.writing else None


@dataclass(frozen=True, slots=True)
class Opening:
    """How a completion begins."""

    standing: PromptState = PromptState.BEFORE
    """Where its prompt leaves off."""
    implied: bool = False
    """Its thinking needs no start."""
    may_answer: bool = False
    """What then has no end either was its answer."""
    end: str = ""
    """Of a thinking that the prompt has closed, where the response's parser does not see it."""

    def told(self, outcome: Outcome) -> Outcome:
        """The account of a sequence; why a thought of the caller's ended is not ours to say."""
        if self.standing is not PromptState.INSIDE:
            return outcome
        return dataclasses.replace(outcome, reason=ExitReason.NONE)


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What a client asked the engine for, as the chat layer handed it over."""

    request_id: str
    prompt: Mapping[str, Any]
    params: SamplingParams
    options: Mapping[str, Any]
    """The other arguments of ``EngineClient.generate``."""
    stops_everywhere: bool = False
    """Stop strings apply to the reasoning, too, as vLLM does it."""
    stop_ids: frozenset[int] = frozenset()
    """Tokens of the text that the client has its answer end at."""
    opening: Opening = Opening()

    @property
    def prompt_ids(self) -> list[int]:
        """Token ids of the prompt."""
        ids: list[int] = self.prompt["prompt_token_ids"]
        return ids

    @property
    def has_ids(self) -> bool:
        """Whether the prompt is made of tokens."""
        prompt = self.prompt
        return isinstance(prompt, Mapping) and isinstance(prompt.get("prompt_token_ids"), list)

    @property
    def stops(self) -> bool:
        """Whether the client has its answer end at a string or a token."""
        return bool(self.params.stop or self.stop_ids)

    def stopped(self, completion: CompletionOutput) -> bool:
        """Whether that is how it ended, before the model's own end."""
        return isinstance(completion.stop_reason, str) or completion.stop_reason in self.stop_ids

    @property
    def adapter(self) -> str | None:
        """Name of the LoRA adapter that serves it; None for the model itself."""
        lora = self.options.get("lora_request")
        return str(lora.lora_name) if lora else None

    def without_adapter(self) -> "EngineRequest":
        """The same for the model itself; salt, priority and rank stay."""
        options = {name: value for name, value in self.options.items() if name != "lora_request"}
        return dataclasses.replace(self, options=options)

    @property
    def has_grammar(self) -> bool:
        """Whether a schema, a tool or the like prescribes the form of the answer."""
        return self.params.structured_outputs is not None

    def probe_options(self, *, priorities: bool) -> dict[str, Any]:
        """What a probe inherits: adapter, data-parallel rank, and priority, with one step less
        where the scheduler looks at it (lower is earlier)."""
        names = ("lora_request", "priority", "data_parallel_rank")
        inherited = {name: self.options[name] for name in names if name in self.options}
        if priorities:
            inherited["priority"] = min(inherited.get("priority", 0) + 1, LAST_PRIORITY)
        return inherited

    def answer_options(self) -> dict[str, Any]:
        """What the answer inherits; grammars start at once, for the thinking has ended."""
        known = self.has_grammar or self.options.get("reasoning_ended") is not None
        return dict(self.options) | ({"reasoning_ended": True} if known else {})


def cause_of(completion: CompletionOutput) -> Cause | None:
    """Why a stream's sequence ended, in the controller's words; None while it runs."""
    if completion.finish_reason is None:
        return None
    if completion.finish_reason == "stop":
        return "stop" if isinstance(completion.stop_reason, str) else "eos"
    return _CAUSES.get(completion.finish_reason, "stop")


def own_budget(
    request: EngineRequest, asked: ThinkingRequest
) -> tuple[EngineRequest, ThinkingRequest]:
    """vLLM's own budget as one of ours: two hands that close would close twice."""
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
    """The model of vLLM's engine client, with what its configuration says; `options` are
    `ServedModel`'s others."""
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
