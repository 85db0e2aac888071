"""Runs one sequence under an exit policy: the asyncio driver of the core's controller.

The layers above see one ordinary stream of deltas that contains ``</think>``. Behind it are the
main stream, the probes beside it, and after an exit the stream of the answer.
"""

import asyncio
import copy
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vllm.engine.protocol import EngineClient
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from service.ledger import SequenceRecord
from service.streams import (
    EngineStream,
    Inbox,
    answer_of,
    answer_params,
    asked_prompt,
    extended_prompt,
    injected_outputs,
    main_params,
    probe_params,
    split_output,
)
from service.tokens import TokenTexts
from stepgrpo_core import (
    CancelProbe,
    CloseThinking,
    Emit,
    ExitController,
    Finished,
    ProbeAnswered,
    StartProbe,
    State,
    ThinkingFormat,
    Tokens,
)
from stepgrpo_core.events import Cause, Command, Event
from stepgrpo_core.policies import Question
from stepgrpo_core.probing import put_question
from stepgrpo_core.thinking import Writing

__all__ = ["Controlled", "Job", "Served", "cause_of"]

_CAUSES: Mapping[str, Cause] = {"length": "length", "abort": "abort"}


@dataclass(frozen=True, slots=True)
class Served:
    """The model behind the server."""

    engine: EngineClient
    tokenizer: Any
    writing: Writing | None
    """None: it does not think."""

    @property
    def thinking(self) -> ThinkingFormat | None:
        """Its tokens of thinking."""
        return self.writing.thinking if self.writing else None


@dataclass(frozen=True, slots=True)
class Job:
    """What a client asked the engine for, as the chat layer handed it over."""

    request_id: str
    prompt: Mapping[str, Any]
    params: SamplingParams
    options: Mapping[str, Any]
    """The other arguments of ``EngineClient.generate``."""

    @property
    def prompt_ids(self) -> list[int]:
        """Token ids of the prompt."""
        ids: list[int] = self.prompt["prompt_token_ids"]
        return ids

    def probe_options(self) -> dict[str, Any]:
        """What a probe inherits: adapter, priority and data-parallel rank."""
        names = ("lora_request", "priority", "data_parallel_rank")
        return {name: self.options[name] for name in names if name in self.options}

    def answer_options(self) -> dict[str, Any]:
        """What the answer inherits; grammars start at once, for the thinking has ended."""
        known = self.options.get("reasoning_ended") is not None
        return dict(self.options) | ({"reasoning_ended": True} if known else {})


def cause_of(completion: CompletionOutput) -> Cause | None:
    """Why a stream's sequence ended, in the controller's words; None while it runs."""
    if completion.finish_reason is None:
        return None
    if completion.finish_reason == "stop":
        return "stop" if isinstance(completion.stop_reason, str) else "eos"
    return _CAUSES.get(completion.finish_reason, "stop")


class Controlled:
    """One request whose sequences each run under an exit controller of their own."""

    def __init__(
        self,
        served: Served,
        job: Job,
        records: Sequence[SequenceRecord],
        controllers: Sequence[ExitController],
    ) -> None:
        self.closed = False
        self._stream = job.params.output_kind is RequestOutputKind.DELTA
        self._inbox: Inbox = asyncio.Queue()
        self._sequences = [
            _Sequence(served, job, self._inbox, controller, record)
            for controller, record in zip(controllers, records, strict=True)
        ]

    async def outputs(self) -> AsyncGenerator[RequestOutput, None]:
        """Deltas, or one whole output, as asked. Records are settled before the last one.

        Holds nothing that needs cleaning up by itself: `close` does, from any task.
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
        """Stop whatever runs, and settle the records."""
        await asyncio.gather(*(each.close() for each in self._sequences))
        self.closed = True

    async def _deltas(self) -> AsyncGenerator[RequestOutput, None]:
        for sequence in self._sequences:
            sequence.open_main()
        unfinished = len(self._sequences)
        while unfinished:
            stream, item = await self._inbox.get()
            sequence = self._sequences[stream.sequence]
            outputs = await sequence.take(stream, item)
            unfinished -= sum(output.finished for output in outputs)
            if not unfinished:
                await self.close()
            for output in outputs:
                output.finished = output.finished and not unfinished
                yield output


class _Sequence:
    """One sequence: its main stream, the probes beside it, and after an exit the answer's."""

    def __init__(
        self,
        served: Served,
        job: Job,
        inbox: Inbox,
        controller: ExitController,
        record: SequenceRecord,
    ) -> None:
        self._inbox = inbox
        assert served.writing is not None
        self._served = served
        self._writing = served.writing
        self._job = job
        self._controller = controller
        self._record = record
        self._params = main_params(job.params, record.index)
        self._texts = self._new_texts(job.prompt_ids)
        self._streams: list[EngineStream] = []  # main, then the answer's
        self._probes: dict[int, EngineStream] = {}
        self._asked: dict[EngineStream, tuple[int, Question, list[RequestOutput]]] = {}
        self._held: deque[tuple[RequestOutput, list[str]]] = deque()
        self._ids: list[int] = []  # generated by the main stream
        self._kept_texts: list[str] = []  # of emitted tokens, one each
        self._sent_characters = 0  # of their text, which a stop string may hold back
        self._first: RequestOutput | None = None
        self._closing: list[RequestOutput] = []  # waits for its log-probs

    # Streams.

    def open_main(self) -> None:
        """Start generating."""
        self._open(self._job.prompt, self._params, self._job.options)

    async def close(self) -> None:
        """Stop whatever runs, and settle the record."""
        await asyncio.gather(*(s.stop() for s in (*self._streams, *self._probes.values())))
        if self._controller.state is not State.DONE:
            self._controller.receive(Finished("abort"))
        self._held.clear()
        record = self._record
        record.outcome = self._controller.outcome
        record.generated_tokens = sum(stream.tokens for stream in self._streams)
        record.probe_tokens = sum(probe.tokens for probe in self._probes.values())
        if record.cut_at is not None:
            record.discarded_tokens = self._streams[0].tokens - record.cut_at

    def _open(
        self, prompt: Mapping[str, Any], params: SamplingParams, options: Mapping[str, Any]
    ) -> None:
        self._streams.append(self._stream("run", prompt, params, options))

    def _stream(
        self,
        role: str,
        prompt: Mapping[str, Any],
        params: SamplingParams,
        options: Mapping[str, Any],
    ) -> EngineStream:
        index, name = self._record.index, f"{self._job.request_id}-{role}"
        engine = self._served.engine
        return EngineStream(
            engine,
            self._inbox,
            sequence=index,
            request_id=name,
            prompt=prompt,
            params=params,
            options=options,
        )

    def _new_texts(self, prompt_ids: Sequence[int]) -> TokenTexts:
        skip = bool(self._job.params.skip_special_tokens)
        return TokenTexts(self._served.tokenizer, prompt_ids, skip_special_tokens=skip)

    # What arrives.

    async def take(
        self, stream: EngineStream, item: RequestOutput | Exception | None
    ) -> list[RequestOutput]:
        """Handle one item of the inbox; return what goes to the client."""
        if stream in self._asked:
            ready = await self._take_answer(stream, item)
        elif stream is not self._streams[-1] or item is None:
            return []  # the main stream after its exit: counted, not used
        elif isinstance(item, Exception):
            raise item
        else:
            ready = await self._take_delta(item)
        if self._controller.state is State.DONE:
            ready += [held for held, _ in self._held]  # a last delta may hold no tokens
            await self.close()
        return [self._addressed(each) for each in ready]

    async def _take_delta(self, output: RequestOutput) -> list[RequestOutput]:
        self._first = self._first or output
        ids = list(output.outputs[0].token_ids)
        texts = self._texts.texts(ids)
        if len(self._streams) == 1:
            self._ids += ids
        self._held.append((output, texts))
        ready = self._closing_with_logprobs(output)
        events: list[Event] = [Tokens(ids, texts)]
        if cause := cause_of(output.outputs[0]):
            events.append(Finished(cause))
        return ready + await self._execute(self._controller.receive(*events))

    async def _take_answer(
        self, stream: EngineStream, item: RequestOutput | Exception | None
    ) -> list[RequestOutput]:
        probe, question, outputs = self._asked[stream]
        if isinstance(item, RequestOutput):
            outputs.append(item)
            return []
        complete = (
            item is None and outputs and cause_of(outputs[-1].outputs[0]) in ("eos", "length")
        )
        answer = answer_of(question, outputs, self._writing) if complete else None
        if self._controller.state is State.DONE:
            return []
        return await self._execute(self._controller.receive(ProbeAnswered(probe, answer)))

    # What the controller wants.

    async def _execute(self, commands: Sequence[Command]) -> list[RequestOutput]:
        ready: list[RequestOutput] = []
        unasked: list[int] = []
        for command in commands:
            if isinstance(command, Emit):
                ready += self._emit(command.count)
            elif isinstance(command, StartProbe):
                if not self._start_probe(command):
                    unasked.append(command.probe)  # fails, once all commands are carried out
            elif isinstance(command, CancelProbe):
                if command.probe in self._probes:
                    await self._probes[command.probe].stop()
            else:
                ready += await self._close_thinking(command)
        for probe in unasked:
            ready += await self._execute(self._controller.receive(ProbeAnswered(probe, None)))
        return ready

    def _start_probe(self, command: StartProbe) -> bool:
        """Whether the question can be put at all."""
        kept = self._ids[: command.position]
        probe = put_question(command.question, self._job.prompt_ids, kept, self._writing)
        if probe is None:
            return False
        stream = self._stream(
            "probe",
            asked_prompt(self._job.prompt, probe.prompt_ids),
            probe_params(probe),
            self._job.probe_options(),
        )
        self._probes[command.probe] = stream
        self._asked[stream] = command.probe, command.question, []
        return True

    def _emit(self, count: int) -> list[RequestOutput]:
        ready: list[RequestOutput] = []
        while count > 0:
            output, texts = self._held.popleft()
            if len(texts) > count:
                kept = sum(map(len, self._kept_texts)) + sum(map(len, texts[:count]))
                output, rest = split_output(output, count, max(kept - self._sent_characters, 0))
                self._held.appendleft((rest, texts[count:]))
                texts = texts[:count]
            count -= len(texts)
            self._kept_texts += texts
            self._sent_characters += len(output.outputs[0].text)
            ready.append(output)
        return ready

    async def _close_thinking(self, command: CloseThinking) -> list[RequestOutput]:
        assert self._first is not None
        await self._streams[0].stop()
        self._held.clear()
        self._record.cut_at = command.position
        closing = list(command.closing_ids)
        self._record.injected_tokens = len(closing)
        kept = self._ids[: command.position]
        params = answer_params(self._params, len(kept) + len(closing))
        self._open(
            extended_prompt(self._job.prompt, [*kept, *closing]),
            params,
            self._job.answer_options(),
        )
        unsent = "".join(self._kept_texts)[self._sent_characters :]
        first, *rest = self._texts_after(kept).texts(closing)
        self._texts = self._texts_after([*kept, *closing])
        self._kept_texts, self._sent_characters = [], 0
        outputs = injected_outputs(self._first, closing, [unsent + first, *rest])
        if params.logprobs is None:
            return outputs
        self._closing = outputs
        return []

    def _texts_after(self, ids: Sequence[int]) -> TokenTexts:
        return self._new_texts([*self._job.prompt_ids, *ids])

    def _closing_with_logprobs(self, answer: RequestOutput) -> list[RequestOutput]:
        """The injected closing, once the answer's stream has brought its log-probs."""
        closing, self._closing = self._closing, []
        if closing:
            logprobs = answer.prompt_logprobs
            assert logprobs is not None
            for place, output in enumerate(closing, start=len(logprobs) - len(closing)):
                output.outputs[0].logprobs = logprobs[place : place + 1]
        return closing

    def _addressed(self, output: RequestOutput) -> RequestOutput:
        """The delta as part of the client's request rather than of a stream of ours."""
        assert self._first is not None
        addressed = copy.copy(self._first)
        addressed.request_id = self._job.request_id
        addressed.finished = output.finished
        addressed.outputs = [copy.copy(output.outputs[0])]
        addressed.outputs[0].index = self._record.index
        return addressed
