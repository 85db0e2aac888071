"""The judge of policy `verifier`: a model behind an OpenAI-compatible URL.

Every call has a timeout, and a failing judge never fails a request: without an answer there is no
exit.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
    "JudgeClient",
    "JudgeServer",
    "Judgment",
    "Outcome",
]

_log = logging.getLogger("vllm.stepgrpo")

KEY_VARIABLE = "STEPGRPO_VERIFIER_API_KEY"

Outcome = Literal["answered", "cancelled"] | FailureReason
"""The end of a call; cancelled: its answer was no longer needed."""


@dataclass(frozen=True, slots=True)
class JudgeServer:
    """Address, model and timeout of a judge. Raises InvalidSetting."""

    url: str
    """Base URL of its API, such as http://judge:8000/v1."""
    model: str | None = None
    """Name of the model; None: the only model that the server lists."""
    timeout: float = 5.0
    """Seconds for one call, retries included."""
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.address.check("verifier_url", KEY_VARIABLE)
        if not 0 < self.timeout <= 600:
            raise InvalidSetting("verifier_timeout", self.timeout, "use seconds, above 0 to 600")

    @property
    def address(self) -> Address:
        """The address of its server."""
        return Address(self.url, self.timeout, self.key)


@dataclass(frozen=True, slots=True)
class Judgment:
    """The result of one call."""

    outcome: Outcome
    reply: Reply | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Tokens of the judge, from its ``usage``, not of this engine."""


class JudgeClient:
    """Asks one judge. Use and close a client in the same event loop."""

    def __init__(
        self,
        server: JudgeServer,
        *,
        on_judgment: Callable[[Judgment], None] = lambda _: None,
        breaker: CircuitBreaker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_judgment = on_judgment
        self._dialect = 0
        self._model = server.model
        self._client = OpenAIClient(server.address, "judge", breaker=breaker, clock=clock)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(self, question: Judge, message: str) -> Judgment:
        """Return the judge's reply to `message`, or the reason for none."""
        judgment = Judgment("cancelled")
        try:
            judgment = await self._try(question, message)
        finally:
            self._on_judgment(judgment)
        return judgment

    async def _try(self, question: Judge, message: str) -> Judgment:
        try:
            return await self._client.run(lambda: self._ask(question, message))
        except RequestFailed as failure:
            return Judgment(failure.reason)

    async def _ask(self, question: Judge, message: str) -> Judgment:
        if self._model is None:
            self._model = _only_model(await self._client.request("GET", "models", None))
        body = {"model": self._model, "messages": [{"role": "user", "content": message}]}
        *others, last = range(self._dialect, len(DIALECTS))
        for dialect in others:
            with contextlib.suppress(RequestRejected):
                return await self._send(dialect, question, body)
        return await self._send(last, question, body)

    async def _send(self, dialect: int, question: Judge, body: Mapping[str, Any]) -> Judgment:
        full = {**body, **DIALECTS[dialect](question)}
        judgment = _judgment(await self._client.request("POST", "chat/completions", full))
        self._dialect = dialect  # later calls start with the first dialect that worked
        return judgment


def _vllm_fields(question: Judge) -> dict[str, Any]:
    """Return fields for vLLM, SGLang and llama.cpp, which can turn thinking off."""
    off = {"enable_thinking": False}
    return _greedy(question) | {"max_tokens": question.max_tokens, "chat_template_kwargs": off}


def _openai_fields(question: Judge) -> dict[str, Any]:
    return _greedy(question) | {"max_completion_tokens": question.max_tokens}


def _greedy(question: Judge) -> dict[str, Any]:
    return {"temperature": 0, "logprobs": True, "top_logprobs": question.top}


def _minimal_fields(question: Judge) -> dict[str, Any]:
    return {"max_tokens": question.max_tokens}


DIALECTS = (_vllm_fields, _openai_fields, _minimal_fields)
"""Request fields of different servers, from the most specific to the most widely accepted."""


def _only_model(listed: Any) -> str:
    try:
        (model,) = listed["data"]
        return str(model["id"])
    except (TypeError, KeyError, ValueError) as error:
        _log.warning("The judge does not list exactly one model: set --exit-verifier-model.")
        raise RequestFailed("garbage") from error


def _judgment(response: Any) -> Judgment:
    """Read the reply from a chat completion. Raises RequestFailed."""
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
    return Judgment("answered", Reply(text, first), _count(prompt), _count(completion))


def _first_token(logprobs: Any) -> tuple[tuple[str, float], ...]:
    """Return text and log-probability of the most likely first tokens, if the server sent them."""
    if not logprobs or not logprobs.get("content"):
        return ()
    top = logprobs["content"][0]["top_logprobs"]
    found = [(str(each["token"]), float(each["logprob"])) for each in top]
    return tuple(sorted(found, key=lambda entry: -entry[1]))


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else 0
