"""Policy `none`: vLLM's own outputs pass through and are counted."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind

from service.engine.request import ClosableRequest, EngineRequest, ServedModel, cause_of
from service.engine.sequence import ControlledSequence
from service.load.running import CannotFinish
from service.records.reasons import Abstained
from service.records.sequence import SequenceRecord
from service.streams.detokenizer import Delivered, TokenTexts
from service.streams.engine_streams import Size, split_each
from service.streams.inbox import AnswerNow, EndWithError, EngineStream
from stepgrpo_core import ExitController, ThinkingFormat
from stepgrpo_core.control.events import Cause
from stepgrpo_core.control.sequence import SequenceState
from stepgrpo_core.control.states import THINKS

__all__ = ["PassthroughRequest"]


class PassthroughRequest(ClosableRequest):
    """One request to the engine, whose sequences are counted by controllers that never exit.

    Its outputs are read directly and sent at once. Its thinking is counted once, when it ends.
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
        self._stream: EngineStream | None = None
        self._request = request
        self._records = records
        self._counted = [_Counted.of(served, request, each) for each in controllers]
        params = request.params
        self._cumulative = params.output_kind is RequestOutputKind.CUMULATIVE
        self._delta = params.output_kind is RequestOutputKind.DELTA
        self._whole = params.output_kind is RequestOutputKind.FINAL_ONLY
        # With stop strings vLLM may hold text back.
        self._divides = params.detokenize and not params.stop and not self._cumulative
        self._ends = _ends_of(served.thinking)
        self._end_id = None if served.thinking is None else served.thinking.end_id
        self._in_text = _ends_in_text(served.thinking)
        self._single = params.n == 1 and self._delta
        self._last: RequestOutput | None = None
        self._error: Exception | None = None
        self._aborting: asyncio.Task[None] | None = None
        self._taken: ControlledSequence | None = None

    async def outputs(self) -> AsyncGenerator[RequestOutput, None]:
        """Yield the engine's outputs; records are settled before the last one."""
        request = self._request
        stream = self._stream = EngineStream(
            self._served.engine,
            sequence=0,
            request_id=request.request_id,
            prompt=request.prompt,
            params=request.params,
            options=request.options,
            load=self._served.load,
        )
        while not self.closed:
            if self._taken is None and self._inbox.empty():
                outputs = self._pass(await stream.read())
            else:
                outputs = await self._take_item(stream)
            if self._error is not None:
                raise self._error
            for output in outputs:
                if output.finished:
                    await self.close()
                yield output

    def abort(self, error: Exception) -> None:
        """End the request with this error soon."""
        self._error = error
        super().abort(error)
        if self._stream is not None:
            self._aborting = asyncio.create_task(self._stream.abort())

    def _catch_up(self) -> None:
        if not self._single:
            raise CannotFinish(
                "Under policy none only the thinking of a stream with n=1 can be closed: stream it "
                "with n=1, or name a policy, such as vllm_xargs={'exit_policy': 'repetition'}."
            )
        for each in self._counted:
            each.read()

    async def close(self) -> None:
        """Stop the stream, and settle the records."""
        if self._taken is not None:
            await self._taken.close()
        elif self._stream is not None:
            await self._stream.stop()
            for record in self._records:
                record.generated_tokens = self._stream.generated.get(record.index, 0)
        for record, counted in zip(self._records, self._counted, strict=False):
            counted.read()
            counted.state.abort()
            record.outcome = self._request.opening.reported(counted.state.outcome)
            record.timeline.finish()
        self.closed = True

    async def _take_item(self, stream: EngineStream) -> list[RequestOutput]:
        """Handle an item of the inbox, which nothing feeds before a client wants its answer."""
        source, item = await self._inbox.get()
        if isinstance(source, EndWithError):
            raise source.error
        if not isinstance(source, AnswerNow):
            assert self._taken is not None
            return await self._taken.take(source, item)
        taken = self._taken or self._take_over(stream)
        return await taken.finish_thinking()

    def _take_over(self, stream: EngineStream) -> ControlledSequence:
        (counted,), (record,) = self._counted, self._records
        counted.read()
        taken = self._taken = ControlledSequence(
            self._served, self._request, self._inbox, counted.state.controller, record
        )
        delivered = Delivered(counted.texts, counted.characters, self._last)
        taken.adopt_main(stream, counted.state, counted.decoder, delivered)
        stream.feed(self._inbox)
        return taken

    def _pass(self, output: RequestOutput) -> Sequence[RequestOutput]:
        """Count an output; return what to send."""
        output.request_id = self._request.request_id
        self._last = output
        sizes = [self._count(each) for each in output.outputs] if self._counted else ()
        for completion in output.outputs:
            self._note(completion.index, output)
        return split_each(output, sizes) if any(sizes) else (output,)

    def _note(self, index: int, output: RequestOutput) -> None:
        timeline = self._records[index].timeline
        if self._whole:
            timeline.received_all(output)
            return
        if timeline.awaiting_tokens:
            timeline.received(output)
        if timeline.thinking and self._counted and not self._counted[index].ids:
            timeline.observe(self._counted[index].state.controller)

    def _count(self, completion: CompletionOutput) -> Size | None:
        """Count a delta; return the size of the reasoning if the thinking ends in the delta.

        The delta is split there, because vLLM's parsers would lose white space after the end and
        put reasoning and content into one event.
        """
        index, ids = completion.index, completion.token_ids
        counted, size = self._counted[index], None
        if self._cumulative:
            ids = ids[counted.seen :]
            counted.seen += len(ids)
        if (continuation := self._records[index].continuation) is not None:
            continuation.answer += ids
        if not counted.state.answering:
            text = completion.text if self._divides else None
            if self._ends.isdisjoint(ids):
                counted.add(ids, text)
                if self._in_text:
                    counted.read()
            else:
                size = self._count_to_end(counted, ids, text)
            counted.characters += len(completion.text)
        if completion.finish_reason is not None:
            counted.read(cause_of(completion))
        return size

    def _count_to_end(
        self, counted: "_Counted", ids: Sequence[int], text: str | None
    ) -> Size | None:
        """Count a delta in which the thinking may end; return the size before a split there."""
        counted.read()
        thought = len(ids) > 1 and counted.state.controller.state in THINKS
        counted.add(ids, text)
        counted.read()
        if text is None or not (thought and self._delta):
            return None
        kept = 1 + next(place for place, token in enumerate(ids) if token in self._ends)
        whole = kept == len(ids) or ids[kept - 1] != self._end_id
        parts = counted.texts[-len(ids) :]
        return None if whole else Size(kept, len("".join(parts[:kept])))


@dataclass(slots=True)
class _Counted:
    """The account of one sequence. Its tokens wait until the account is needed."""

    state: SequenceState
    decoder: TokenTexts
    ids: list[int] = field(default_factory=list)
    """Ids that the state has not taken yet."""
    texts: list[str] = field(default_factory=list)
    """Texts of all tokens until the thinking has ended."""
    characters: int = 0
    """Characters that were sent; a stop string may hold some back."""
    seen: int = 0
    """Tokens of the last cumulative output."""

    @classmethod
    def of(
        cls, served: ServedModel, request: EngineRequest, controller: ExitController
    ) -> "_Counted":
        """Return the account of a sequence that has not begun."""
        prompt_ids, skip = request.prompt_ids, bool(request.params.skip_special_tokens)
        decoder = TokenTexts(served.tokenizer, prompt_ids, skip_special_tokens=skip)
        return cls(SequenceState(controller, prompt_ids), decoder)

    def add(self, ids: Sequence[int], text: str | None) -> None:
        """Add tokens, and the text that came with them if it is all of theirs."""
        self.ids += ids
        self.texts += self.decoder.texts(ids, text)

    def read(self, cause: Cause | None = None) -> None:
        """Let the controller count the tokens that wait, and the end of the sequence."""
        ids, self.ids = self.ids, []
        if (ids or cause) and not self.state.done:
            self.state.take(ids, self.texts[len(self.texts) - len(ids) :], cause)


def _ends_of(thinking: ThinkingFormat | None) -> frozenset[int]:
    """Return the tokens that may end the thinking."""
    return frozenset() if thinking is None else thinking.tool_ids | {thinking.end_id}


def _ends_in_text(thinking: ThinkingFormat | None) -> bool:
    """Return whether the thinking may end in text, or at tokens that only end it together."""
    return thinking is not None and bool(
        thinking.end_text or thinking.tool_texts or thinking.tool_starts
    )
