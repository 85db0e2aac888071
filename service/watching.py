"""Policy `none`: vLLM's own outputs pass untouched, and are counted on the way."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind

from service.job import Job, Served, cause_of
from service.ledger import SequenceRecord
from service.streams import EngineStream, Inbox
from service.tokens import TokenTexts
from stepgrpo_core import ExitController, Finished, State, Tokens

__all__ = ["Watched"]


class Watched:
    """One request to the engine, its sequences counted by controllers that never exit.

    Without `controllers` (the model has no thinking tokens) only tokens are counted.
    """

    def __init__(
        self,
        served: Served,
        job: Job,
        records: Sequence[SequenceRecord],
        controllers: Sequence[ExitController],
    ) -> None:
        self.closed = False
        self._engine, self._load = served.engine, served.load
        self._inbox: Inbox = asyncio.Queue()
        self._stream: EngineStream | None = None
        self._job = job
        self._records = records
        self._controllers = controllers
        self._cumulative = job.params.output_kind is RequestOutputKind.CUMULATIVE
        self._seen = [0] * len(records)
        self._texts = [
            TokenTexts(
                served.tokenizer, job.prompt_ids, skip_special_tokens=job.params.skip_special_tokens
            )
            for _ in controllers
        ]

    async def outputs(self) -> AsyncGenerator[RequestOutput, None]:
        """The engine's outputs; records are settled before the last one comes out."""
        job = self._job
        self._stream = EngineStream(
            self._engine,
            self._inbox,
            sequence=0,
            request_id=job.request_id,
            prompt=job.prompt,
            params=job.params,
            options=job.options,
            load=self._load,
        )
        while output := await self._next():
            for completion in output.outputs:
                self._observe(completion)
            output.request_id = job.request_id
            if output.finished:
                await self.close()
            yield output

    async def close(self) -> None:
        """Stop what runs, and settle the records."""
        if self._stream is not None:
            await self._stream.stop()
            for record in self._records:
                record.generated_tokens = self._stream.generated.get(record.index, 0)
        for record, controller in zip(self._records, self._controllers, strict=False):
            if controller.state is not State.DONE:
                controller.receive(Finished("abort"))
            record.outcome = controller.outcome
        self.closed = True

    async def _next(self) -> RequestOutput | None:
        _, item = await self._inbox.get()
        if isinstance(item, Exception):
            raise item
        return item

    def _observe(self, completion: CompletionOutput) -> None:
        if not self._controllers:
            return
        index = completion.index
        ids = (
            completion.token_ids[self._seen[index] :] if self._cumulative else completion.token_ids
        )
        self._seen[index] += len(ids)
        controller = self._controllers[index]
        controller.receive(Tokens(ids, self._texts[index].texts(ids)))
        cause = cause_of(completion)
        if cause:
            controller.receive(Finished(cause))
