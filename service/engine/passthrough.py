"""Policy `none`: vLLM's own outputs pass through and are counted."""

from collections.abc import AsyncGenerator, Callable, Sequence

from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind

from service.engine.request import ClosableRequest, EngineRequest, ServedModel, cause_of
from service.engine.sequence import ControlledSequence
from service.load.running import CannotFinish
from service.records.reasons import Abstained
from service.records.sequence import SequenceRecord
from service.streams.detokenizer import Delivered, TokenTexts
from service.streams.engine_streams import (
    AnswerNow,
    EndWithError,
    EngineStream,
    Entry,
    Size,
    split_each,
)
from stepgrpo_core import ExitController, Finished, State, ThinkingFormat, Tokens
from stepgrpo_core.control.states import THINKS

__all__ = ["PassthroughRequest"]

READ_AT_ONCE = 16  # tokens; reading them one by one takes twice the time


class PassthroughRequest(ClosableRequest):
    """One request to the engine, whose sequences are counted by controllers that never exit.

    Without `controllers` (the model has no thinking tokens) only tokens are counted. If the client
    wants its answer now, a `ControlledSequence` takes the stream over.
    """

    def __init__(
        self,
        served: ServedModel,
        request: EngineRequest,
        records: Sequence[SequenceRecord],
        controllers: Sequence[ExitController],
        *,
        obstacle: Callable[[], Abstained | None],
    ) -> None:
        super().__init__(controllers, obstacle)
        self._served = served
        self._ahead: Entry | None = None  # taken out of the inbox, but not used yet
        self._stream: EngineStream | None = None
        self._request = request
        self._records = records
        self._cumulative = request.params.output_kind is RequestOutputKind.CUMULATIVE
        self._seen = [0] * len(records)
        self._unread: list[list[int]] = [[] for _ in controllers]  # ids, by sequence
        skip = request.params.skip_special_tokens
        self._delivered = [
            Delivered(TokenTexts(served.tokenizer, request.prompt_ids, skip_special_tokens=skip))
            for _ in controllers
        ]
        self._delta = request.params.output_kind is RequestOutputKind.DELTA
        self._whole = request.params.output_kind is RequestOutputKind.FINAL_ONLY
        self._ends = _ends_of(served.thinking)
        self._end_id = None if served.thinking is None else served.thinking.end_id
        self._single = (
            request.params.n == 1 and request.params.output_kind is RequestOutputKind.DELTA
        )
        self._taken: ControlledSequence | None = None

    async def outputs(self) -> AsyncGenerator[RequestOutput, None]:
        """Yield the engine's outputs; records are settled before the last one."""
        request = self._request
        self._stream = EngineStream(
            self._served.engine,
            self._inbox,
            sequence=0,
            request_id=request.request_id,
            prompt=request.prompt,
            params=request.params,
            options=request.options,
            load=self._served.load,
        )
        while not self.closed:
            source, item = await self._next()
            if isinstance(source, EndWithError):
                raise source.error
            if isinstance(source, AnswerNow):
                outputs = await self._take_over(self._stream)
            elif self._taken is not None:
                outputs = await self._taken.take(source, item)
            else:
                assert item is not None  # None follows the last output, which closes the run
                outputs = self._pass(self._merged(item))
            for output in outputs:
                if output.finished:
                    await self.close()
                yield output

    def _catch_up(self) -> None:
        if not self._single:
            raise CannotFinish(
                "Under policy none only the thinking of a stream with n=1 can be closed: stream it "
                "with n=1, or name a policy, such as vllm_xargs={'exit_policy': 'repetition'}."
            )
        self._read(0)

    async def close(self) -> None:
        """Stop the stream, and settle the records."""
        if self._taken is not None:
            await self._taken.close()
        elif self._stream is not None:
            await self._stream.stop()
            for record in self._records:
                record.generated_tokens = self._stream.generated.get(record.index, 0)
        for record, controller in zip(self._records, self._controllers, strict=False):
            if controller.state is not State.DONE:
                self._read(record.index)
                controller.receive(Finished("abort"))
            record.outcome = self._request.opening.reported(controller.outcome)
            record.timeline.finish()
        self.closed = True

    async def _take_over(self, stream: EngineStream) -> list[RequestOutput]:
        """Close the thinking after the tokens that were sent, now or as soon as possible."""
        if self._taken is None:
            (controller,), (record,) = self._controllers, self._records
            self._read(0)
            self._taken = ControlledSequence(
                self._served, self._request, self._inbox, controller, record
            )
            self._taken.adopt_main(stream, self._delivered[0])
        return await self._taken.finish_thinking()

    async def _next(self) -> Entry:
        entry, self._ahead = self._ahead, None
        return entry or await self._inbox.get()

    def _merged(self, item: RequestOutput | Exception) -> RequestOutput | Exception:
        """Merge a delta with those that wait behind it, as vLLM does under load.

        Each delta costs time in the HTTP layers. A delta that may end the thinking stays separate,
        because vLLM's parsers lose white space that follows the end in the same delta.
        """
        while self._delta and not self._inbox.empty() and self._can_merge(item):
            self._ahead = self._inbox.get_nowait()
            more = self._ahead[1]
            if self._ahead[0] is not self._stream or not self._can_merge(more):
                break
            assert isinstance(item, RequestOutput)
            assert isinstance(more, RequestOutput)
            item.add(more, aggregate=True)
            self._ahead = None
        return item

    def _can_merge(self, item: object) -> bool:
        return (
            isinstance(item, RequestOutput)
            and not item.finished
            and all(self._ends.isdisjoint(each.token_ids) for each in item.outputs)
        )

    def _pass(self, item: RequestOutput | Exception) -> list[RequestOutput]:
        if isinstance(item, Exception):
            raise item
        sizes = []
        for completion in item.outputs:
            sizes.append(self._observe(completion, item))
            self._note(completion.index, item)
        item.request_id = self._request.request_id
        return split_each(item, sizes) if any(sizes) else [item]

    def _note(self, index: int, output: RequestOutput) -> None:
        timeline = self._records[index].timeline
        if self._whole:
            timeline.received_all(output)
            return
        if timeline.awaiting_tokens:
            timeline.received(output)
        if timeline.thinking and self._controllers:
            timeline.observe(self._controllers[index])

    def _observe(self, completion: CompletionOutput, output: RequestOutput) -> Size | None:
        """Feed the controller; return the size of the reasoning if the thinking ends in the delta.

        The delta is split there, because vLLM's parsers would lose white space after the end and
        put reasoning and content into one event.
        """
        if not self._controllers:
            return None
        index = completion.index
        ids = (
            completion.token_ids[self._seen[index] :] if self._cumulative else completion.token_ids
        )
        self._seen[index] += len(ids)
        if self._single:
            self._delivered[index].note(completion, output)
        unread = self._unread[index]
        unread += ids
        if (continuation := self._records[index].continuation) is not None:
            continuation.answer += ids
        cause, size = cause_of(completion), None
        if not self._ends.isdisjoint(ids):
            size = self._read_to_end(index, ids)
        elif cause or len(unread) >= READ_AT_ONCE:
            self._read(index)
        if cause:
            self._controllers[index].receive(Finished(cause))
        return size

    def _read_to_end(self, index: int, ids: Sequence[int]) -> Size | None:
        """Read a delta in which the thinking may end; return the size of the reasoning to split."""
        thought = self._controllers[index].state in THINKS
        texts = self._read(index)[-len(ids) :]
        if (
            not (thought and self._delta) or self._request.params.stop
        ):  # stop: vLLM may hold text back
            return None
        kept = 1 + next(place for place, token in enumerate(ids) if token in self._ends)
        whole = kept == len(ids) or ids[kept - 1] != self._end_id
        return None if whole else Size(kept, len("".join(texts[:kept])))

    def _read(self, index: int) -> list[str]:
        """Feed the controller the tokens since the last call; return their texts."""
        ids, self._unread[index] = self._unread[index], []
        if not ids:
            return []
        delivered = self._delivered[index]
        texts = delivered.decoder.texts(ids)
        if self._single:
            delivered.ids += ids
            delivered.texts += texts
        self._controllers[index].receive(Tokens(ids, texts))
        return texts


def _ends_of(thinking: ThinkingFormat | None) -> frozenset[int]:
    """Return the tokens that may end the thinking."""
    return frozenset() if thinking is None else thinking.tool_ids | {thinking.end_id}
