"""Runs one sequence under an exit policy: the asyncio driver of the core's controller.

The layers above see one ordinary stream of deltas that contains ``</think>``. Behind it are the
main stream, the probes beside it, and after an exit the stream of the answer.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vllm.engine.protocol import EngineClient
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams

from service.eligibility import Abstained
from service.ledger import SequenceRecord
from service.load import Load, ProbeLimits
from service.stopping import AnswerStops
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
    shallow,
    split_output,
    without_stops,
)
from service.tokens import TokenTexts
from stepgrpo_core import (
    CancelProbe,
    CloseThinking,
    Emit,
    ExitController,
    Finished,
    ProbeAnswered,
    ProbeRefused,
    StartProbe,
    State,
    ThinkingFormat,
    Tokens,
)
from stepgrpo_core.events import Cause, Command, Event
from stepgrpo_core.policies import Answer, Question
from stepgrpo_core.probing import put_question
from stepgrpo_core.thinking import Writing

__all__ = ["ControlledSequence", "Job", "Served", "cause_of"]

_log = logging.getLogger("vllm.stepgrpo")
_LAST = 2**63 - 1  # vLLM's priorities are 64-bit integers
_CAUSES: Mapping[str, Cause] = {"length": "length", "abort": "abort"}


@dataclass(frozen=True, slots=True)
class Served:
    """The model behind the server."""

    engine: EngineClient
    tokenizer: Any
    writing: Writing | None
    """None: it does not think."""
    load: Load
    probe_timeout: float = ProbeLimits().probe_timeout
    """Seconds."""
    priorities: bool = False
    """The scheduler looks at priorities."""

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
            inherited["priority"] = min(inherited.get("priority", 0) + 1, _LAST)
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


class ControlledSequence:
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
        self._end_id = served.writing.thinking.end_id
        self._job = job
        self._controller = controller
        self._record = record
        self._params = main_params(job.params, record.index)
        in_answer = bool(job.params.stop) and not controller.shadow
        self._stops = AnswerStops(self._params) if in_answer else None  # None: vLLM's business
        self._stopped = False  # the main stream, by one of them
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
        self._stopping: set[asyncio.Task[None]] = set()

    # Streams.

    def open_main(self) -> None:
        """Start generating."""
        params = without_stops(self._params) if self._stops else self._params
        self._open(self._job.prompt, params, self._job.options)

    async def close(self) -> None:
        """Stop whatever runs, and settle the record."""
        await asyncio.gather(*(s.stop() for s in (*self._streams, *self._probes.values())))
        if self._controller.state is not State.DONE:
            self._controller.receive(Finished("abort"))
        self._held.clear()
        record = self._record
        record.outcome = self._controller.outcome
        if record.abstained is not Abstained.POLICY_ERROR and (fault := self._controller.fault):
            record.abstained = Abstained.POLICY_ERROR
            name = type(fault).__name__  # its words may quote the reasoning
            _log.error("Policy %s failed (%s); no exit for its request.", record.policy, name)
        record.generated_tokens = sum(stream.tokens for stream in self._streams)
        record.probe_tokens = sum(probe.tokens for probe in self._probes.values())
        if record.cut_at is not None:
            record.discarded_tokens = self._streams[0].tokens - record.cut_at
        elif self._stopped:
            record.discarded_tokens = self._streams[0].tokens - len(self._ids)

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
            load=self._served.load,
            probe=role == "probe",
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
        elif not self._listens_to(stream) or item is None:
            return []  # the main stream after its exit: counted, not used
        elif isinstance(item, Exception):
            raise item
        else:
            ready = await self._take_delta(stream, item)
        if self._controller.state is State.DONE:
            ready += [held for held, _ in self._held]  # a last delta may hold no tokens
            await self.close()
        return [self._addressed(each) for each in ready]

    def _listens_to(self, stream: EngineStream) -> bool:
        ended = self._stopped or self._controller.state is State.DONE
        return stream is self._streams[-1] and not (ended and len(self._streams) == 1)

    async def _take_delta(self, stream: EngineStream, output: RequestOutput) -> list[RequestOutput]:
        self._first = self._first or output
        ready = self._closing_with_logprobs(output)
        for piece, texts in self._pieces(output):
            if self._listens_to(stream):
                ready += await self._take_piece(piece, texts)
        return ready

    def _pieces(self, output: RequestOutput) -> Iterator[tuple[RequestOutput, list[str]]]:
        """The delta cut after ``</think>``: of one with nothing but white space after it, vLLM
        0.31's parsers lose that. With stop strings to look for, its tokens one by one."""
        ids = list(output.outputs[0].token_ids)
        texts = self._texts.texts(ids)
        sizes = [1] * (len(ids) - 1) if self._stops else []
        if self._end_id in ids[:-1] and not self._params.stop:  # else vLLM may hold text back
            sizes = [ids.index(self._end_id) + 1]
        for size in sizes:
            piece, output = split_output(output, size, len("".join(texts[:size])))
            yield piece, texts[:size]
            texts = texts[size:]
        yield output, texts

    async def _take_piece(self, output: RequestOutput, texts: list[str]) -> list[RequestOutput]:
        ids = list(output.outputs[0].token_ids)
        if self._stops and self._in_answer(ids, texts, self._stops):
            output = self._stops.take(output, len(self._ids) + 1)
        if len(self._streams) == 1:
            self._ids += ids
        self._held.append((output, texts))
        events: list[Event] = [Tokens(ids, texts)]
        cause = cause_of(output.outputs[0])
        if cause:
            events.append(Finished(cause))
        if cause == "stop" and self._stops:
            self._stopped = True
            await self._streams[0].stop()
        return await self._execute(self._controller.receive(*events))

    def _in_answer(self, ids: list[int], texts: list[str], stops: AnswerStops) -> bool:
        if not ids:  # the stream's end
            return bool(stops.tail)
        return self._controller.would_answer(ids[0], texts[0])

    async def _take_answer(
        self, stream: EngineStream, item: RequestOutput | Exception | None
    ) -> list[RequestOutput]:
        probe, question, outputs = self._asked[stream]
        if isinstance(item, RequestOutput):
            outputs.append(item)
            return []
        if isinstance(item, TimeoutError) and self._waits_on(stream):
            return []
        answer = None if item else self._answer(question, outputs)
        outputs.clear()
        if self._controller.state is State.DONE:
            return []
        return await self._execute(self._controller.receive(ProbeAnswered(probe, answer)))

    def _waits_on(self, stream: EngineStream) -> bool:
        """Whether a probe that takes long may take longer: it queues, and time must not decide."""
        if self._params.seed is not None and self._served.load.waiting:
            stream.expire_after(self._served.probe_timeout)
            return True
        task = asyncio.create_task(stream.stop())  # which may take its time as well
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
        return False

    def _answer(self, question: Question, outputs: Sequence[RequestOutput]) -> Answer | None:
        """What a probe that ended brought; None if that is no answer."""
        try:
            if cause_of(outputs[-1].outputs[0]) in ("eos", "length"):
                return answer_of(question, outputs, self._writing)
        except Exception as error:  # noqa: BLE001 - whatever came: a failed probe fails no request
            _log.warning("A probe brought what cannot be read: %s", type(error).__name__)
        return None

    # What the controller wants.

    async def _execute(self, commands: Sequence[Command]) -> list[RequestOutput]:
        ready: list[RequestOutput] = []
        unasked: list[Event] = []
        for command in commands:
            if isinstance(command, Emit):
                ready += self._emit(command.count)
            elif isinstance(command, StartProbe):
                if event := self._start_probe(command):
                    unasked.append(event)  # told once all commands are carried out
            elif isinstance(command, CancelProbe):
                if command.probe in self._probes:
                    await self._probes[command.probe].stop()
            else:
                ready += await self._close_thinking(command)
        for event in unasked:
            ready += await self._execute(self._controller.receive(event))
        return ready

    def _start_probe(self, command: StartProbe) -> Event | None:
        """Put the question; or what becomes of it, if it is not put."""
        kept = self._ids[: command.position]
        probe = put_question(command.question, self._job.prompt_ids, kept, self._writing)
        if probe is None:
            return ProbeAnswered(command.probe, None)
        if self._params.seed is None and (refusal := self._served.load.refusal()):
            self._record.refused_probes[refusal] += 1
            return ProbeRefused(command.probe)
        stream = self._stream(
            "probe",
            asked_prompt(self._job.prompt, probe.prompt_ids),
            probe_params(probe),
            self._job.probe_options(priorities=self._served.priorities),
        )
        stream.expire_after(self._served.probe_timeout)
        self._probes[command.probe] = stream
        self._asked[stream] = command.probe, command.question, []
        return None

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
        self._stops, self._stopped = None, False  # the answer's own stream has vLLM look for them
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
        addressed = shallow(self._first)
        addressed.request_id = self._job.request_id
        addressed.finished = output.finished
        addressed.outputs = [shallow(output.outputs[0])]
        addressed.outputs[0].index = self._record.index
        return addressed
