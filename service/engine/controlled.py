"""One request under an exit policy: its sequences side by side, as one stream of deltas."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind

from service.engine.request import ClosableRequest, EngineRequest, ServedModel
from service.engine.sequence import ControlledSequence
from service.records.reasons import Abstained
from service.records.sequence import SequenceRecord
from service.streams.inbox import AnswerNow, EndWithError
from stepgrpo_core import ExitController

__all__ = ["ControlledRequest"]


class ControlledRequest(ClosableRequest):
    """One request whose sequences each run under an exit controller of their own."""

    def __init__(
        self,
        served: ServedModel,
        request: EngineRequest,
        records: Sequence[SequenceRecord],
        controllers: Sequence[ExitController],
        *,
        obstacle: Callable[[], Abstained | None] = lambda: None,
    ) -> None:
        super().__init__(controllers, obstacle)
        self._stream = request.params.output_kind is RequestOutputKind.DELTA
        self._sequences = [
            ControlledSequence(served, request, self._inbox, controller, record)
            for controller, record in zip(controllers, records, strict=True)
        ]

    async def outputs(self) -> AsyncGenerator[RequestOutput, None]:
        """Yield deltas, or one whole output, as requested; records are settled before the last.

        The generator owns no resources: `close` may be called from any task.
        """
        whole: RequestOutput | None = None
        async for output in self._deltas():
            if self._stream:
                yield output
            elif whole is None:
                whole = output
            else:
                whole.add(output, aggregate=True)
        if whole is not None:
            whole.outputs.sort(key=lambda completion: completion.index)
            yield whole

    async def close(self) -> None:
        """Stop all streams and probes, and settle the records."""
        await asyncio.gather(*(each.close() for each in self._sequences))
        self.closed = True

    async def _deltas(self) -> AsyncGenerator[RequestOutput, None]:
        for sequence in self._sequences:
            sequence.open_main()
        unfinished = len(self._sequences)
        while unfinished:
            source, item = await self._inbox.get()
            if isinstance(source, EndWithError):
                raise source.error
            if isinstance(source, AnswerNow):
                outputs = [o for each in self._sequences for o in await each.finish_thinking()]
            else:
                outputs = await self._sequences[source.sequence].take(source, item)
            unfinished -= sum(output.finished for output in outputs)
            if not unfinished:
                await self.close()
            for output in outputs:
                output.finished = output.finished and not unfinished
                yield output
