"""The judge of policy `verifier` behind a URL: any OpenAI-compatible server.

A judge is never waited for longer than its time, and whatever it does, no request of ours fails:
no answer is no exit.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from service.clients.circuit_breaker import CircuitBreaker
from service.clients.openai import (
    Address,
    FailureReason,
    OpenAIClient,
    RequestFailed,
    RequestRejected,
)
from stepgrpo_core import InvalidSetting
from stepgrpo_core.policies import Judge, Reply

__all__ = [
    "KEY_VARIABLE",
    "OUTCOMES",
    "JudgeClient",
    "JudgeServer",
    "Judgement",
    "Outcome",
]

_log = logging.getLogger("vllm.stepgrpo")

KEY_VARIABLE = "STEPGRPO_VERIFIER_API_KEY"

Outcome = Literal["answered", "cancelled"] | FailureReason
"""Of a question; cancelled: its answer no longer mattered."""
OUTCOMES: tuple[Outcome, ...] = (*get_args(get_args(Outcome)[0]), *get_args(FailureReason))


@dataclass(frozen=True, slots=True)
class JudgeServer:
    """Where a judge is, and how long it may take. Raises InvalidSetting."""

    url: str
    """Base of its API, such as http://judge:8000/v1."""
    model: str | None = None
    """Its name there; None: the only one."""
    timeout: float = 5.0
    """Seconds for one question, attempts included."""
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.address.check("verifier_url", KEY_VARIABLE)
        if not 0 < self.timeout <= 600:
            raise InvalidSetting("verifier_timeout", self.timeout, "use seconds, above 0 to 600")

    @property
    def address(self) -> Address:
        """Where it is."""
        return Address(self.url, self.timeout, self.key)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of one question."""

    outcome: Outcome
    reply: Reply | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """As the judge's ``usage`` has them: its cost, not this engine's."""


class JudgeClient:
    """Puts questions to one judge. Use it in one event loop, and close it there."""

    def __init__(
        self,
        server: JudgeServer,
        *,
        on_judgement: Callable[[Judgement], None] = lambda _: None,
        breaker: CircuitBreaker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_judgement = on_judgement
        self._dialect = 0
        self._model = server.model
        self._remote = OpenAIClient(server.address, "judge", breaker=breaker, clock=clock)

    async def close(self) -> None:
        """Free the connections."""
        await self._remote.close()

    async def ask(self, question: Judge, message: str) -> Judgement:
        """What the judge says to `message`, or why it says nothing."""
        judgement = Judgement("cancelled")
        try:
            judgement = await self._guarded(question, message)
        finally:
            self._on_judgement(judgement)
        return judgement

    async def _guarded(self, question: Judge, message: str) -> Judgement:
        try:
            return await self._remote.run(lambda: self._ask(question, message))
        except RequestFailed as failure:
            return Judgement(failure.reason)

    async def _ask(self, question: Judge, message: str) -> Judgement:
        if self._model is None:
            self._model = _only_model(await self._remote.request("GET", "models", None))
        body = {"model": self._model, "messages": [{"role": "user", "content": message}]}
        *others, last = range(self._dialect, len(DIALECTS))
        for dialect in others:
            with contextlib.suppress(RequestRejected):
                return await self._say(dialect, question, body)
        return await self._say(last, question, body)

    async def _say(self, dialect: int, question: Judge, body: Mapping[str, Any]) -> Judgement:
        said = {**body, **DIALECTS[dialect](question)}
        judgement = _judgement(await self._remote.request("POST", "chat/completions", said))
        self._dialect = dialect  # it is understood: a refusal may have had other reasons
        return judgement


def _of_vllm(question: Judge) -> dict[str, Any]:
    """vLLM, SGLang and llama.cpp can be told not to think first."""
    off = {"enable_thinking": False}
    return _greedy(question) | {"max_tokens": question.max_tokens, "chat_template_kwargs": off}


def _of_openai(question: Judge) -> dict[str, Any]:
    return _greedy(question) | {"max_completion_tokens": question.max_tokens}


def _greedy(question: Judge) -> dict[str, Any]:
    return {"temperature": 0, "logprobs": True, "top_logprobs": question.top}


def _plain(question: Judge) -> dict[str, Any]:
    return {"max_tokens": question.max_tokens}


DIALECTS = (_of_vllm, _of_openai, _plain)
"""What servers understand, the most telling first."""


def _only_model(listed: Any) -> str:
    try:
        (model,) = listed["data"]
        return str(model["id"])
    except (TypeError, KeyError, ValueError) as error:
        _log.warning("The judge does not have exactly one model: set --exit-verifier-model.")
        raise RequestFailed("garbage") from error


def _judgement(response: Any) -> Judgement:
    """The reply in a chat completion; raises _Failed for anything else."""
    try:
        choice = response["choices"][0]
        text = choice["message"].get("content") or ""
        first = _first_token(choice.get("logprobs"))
        usage = response.get("usage") or {}
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    except (TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
        raise RequestFailed("garbage") from error
    if not isinstance(text, str) or not (text or first):
        raise RequestFailed("garbage")
    return Judgement("answered", Reply(text, first), _count(prompt), _count(completion))


def _first_token(logprobs: Any) -> tuple[tuple[str, float], ...]:
    """Text and log-probability of the likeliest first tokens; none where none are told."""
    if not logprobs or not logprobs.get("content"):
        return ()
    told = logprobs["content"][0]["top_logprobs"]
    found = [(str(each["token"]), float(each["logprob"])) for each in told]
    return tuple(sorted(found, key=lambda entry: -entry[1]))


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else 0
