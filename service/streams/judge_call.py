"""One request to the judge, as a source of an inbox beside the engine's streams."""

import asyncio
import logging

from service.clients.judge import JudgeClient
from service.streams.inbox import Inbox
from stepgrpo_core.policies import Judge, Reply

__all__ = ["JudgeCall", "NoReply"]

_log = logging.getLogger("vllm.stepgrpo")


class NoReply(Exception):
    """An inbox item: the judge has not replied."""


class JudgeCall:
    """One request to the judge: a source of an inbox beside the engine's streams."""

    tokens = 0  # this engine generates none of the judge's tokens

    def __init__(
        self, inbox: Inbox, client: JudgeClient, sequence: int, spec: Judge, message: str
    ) -> None:
        self.sequence = sequence
        self.judge_tokens = 0
        """Tokens that the judge processed, prompt included."""
        self._inbox = inbox
        self._task = asyncio.create_task(self._run(client, spec, message))

    async def _run(self, client: JudgeClient, spec: Judge, message: str) -> None:
        answer: Reply | NoReply = NoReply()
        try:
            judgment = await client.ask(spec, message)
            self.judge_tokens = judgment.prompt_tokens + judgment.completion_tokens
            answer = judgment.reply or answer
        except Exception as error:  # noqa: BLE001 - a failed judge must not fail its request
            _log.error("A call of the judge failed: %s", type(error).__name__)
        self._inbox.put_nowait((self, answer))

    async def stop(self) -> None:
        """Cancel the request."""
        self._task.cancel()
        await asyncio.wait([self._task])
