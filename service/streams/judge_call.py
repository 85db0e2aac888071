"""One question to the judge, as a source of an inbox beside the engine's streams."""

import asyncio
import logging

from service.clients.judge import JudgeClient
from service.streams.engine_streams import Inbox
from stepgrpo_core.policies import Judge, Reply

__all__ = ["JudgeCall", "NoReply"]

_log = logging.getLogger("vllm.stepgrpo")


class NoReply(Exception):
    """In an inbox: the judge has none."""


class JudgeCall:
    """One question on its way to the judge: a source of an inbox beside the engine's streams."""

    tokens = 0  # the judge's are not this engine's

    def __init__(
        self, inbox: Inbox, client: JudgeClient, sequence: int, question: Judge, message: str
    ) -> None:
        self.sequence = sequence
        self.judge_tokens = 0
        """What the answer cost the judge, prompt included."""
        self._inbox = inbox
        self._task = asyncio.create_task(self._run(client, question, message))

    async def _run(self, client: JudgeClient, question: Judge, message: str) -> None:
        answer: Reply | NoReply = NoReply()
        try:
            judgement = await client.ask(question, message)
            self.judge_tokens = judgement.prompt_tokens + judgement.completion_tokens
            answer = judgement.reply or answer
        except Exception as error:  # noqa: BLE001 - whatever it is, no request may fail of it
            _log.error("A question to the judge failed: %s", type(error).__name__)
        self._inbox.put_nowait((self, answer))

    async def stop(self) -> None:
        """Ask no more."""
        self._task.cancel()
        await asyncio.wait([self._task])
