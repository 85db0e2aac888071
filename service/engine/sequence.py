"""Runs one sequence under an exit policy: the asyncio driver of the core's controller.

The layers above see one ordinary stream of deltas that contains ``</think>``. It is assembled from
the main stream and, after an exit, the injected closing and the answer's stream; probes run beside
them.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vllm.outputs import RequestOutput
from vllm.sampling_params import SamplingParams

from service.engine.request import EngineRequest, ServedModel, cause_of
from service.records.reasons import Abstained
from service.records.sequence import ContinuationInput, SequenceRecord
from service.streams.detokenizer import Delivered, TokenTexts
from service.streams.engine_streams import (
    EngineStream,
    Inbox,
    Item,
    Source,
    answer_of,
    answer_params,
    extended_prompt,
    injected_outputs,
    main_params,
    probe_params,
    probe_prompt,
    shallow,
    split_output,
)
from service.streams.judge_call import JudgeCall
from service.streams.stop_strings import AnswerStops, without_stops
from stepgrpo_core import (
    CancelProbe,
    CloseThinking,
    Emit,
    ExitController,
    ProbeAnswered,
    ProbeRefused,
    StartProbe,
)
from stepgrpo_core.control.events import Command
from stepgrpo_core.control.sequence import SequenceState
from stepgrpo_core.policies import Answer, Judge, ProbeSpec, Reply

__all__ = ["ControlledSequence"]

_log = logging.getLogger("vllm.stepgrpo")


class ControlledSequence:
    """One sequence: its main stream, its probes, and after an exit the answer's stream."""

    def __init__(
        self,
        served: ServedModel,
        request: EngineRequest,
        inbox: Inbox,
        controller: ExitController,
        record: SequenceRecord,
    ) -> None:
        self._inbox = inbox
        assert served.writing is not None
        self._served = served
        self._writing = served.writing
        self._end_id = served.writing.thinking.end_id
        self._request = request
        self._state = SequenceState(controller, request.prompt_ids)
        self._record = record
        self._timeline = record.timeline
        self._params = main_params(request.params, record.index)
        in_answer = request.stops and not request.stops_everywhere  # otherwise vLLM applies them
        self._stops = AnswerStops(self._params, request.stop_ids) if in_answer else None
        self._stopped = False  # one of them has ended the main stream
        self._texts = self._new_texts(request.prompt_ids)
        self._streams: list[EngineStream] = []  # main, then the answer's
        self._probes: dict[int, EngineStream | JudgeCall] = {}
        self._probe_outputs: dict[Source, tuple[StartProbe, list[RequestOutput]]] = {}
        self._held: deque[tuple[RequestOutput, list[str]]] = deque()
        self._emitted_texts: list[str] = []  # one per emitted token
        self._sent_characters = 0  # less than their text while a stop string holds some back
        self._first: RequestOutput | None = None
        self._closing: list[RequestOutput] = []  # injected, waiting for log-probs
        self._stopping: set[asyncio.Task[None]] = set()

    # Streams.

    def open_main(self) -> None:
        """Start the main stream."""
        params = self._params
        if self._stops:
            params = without_stops(params, self._request.stop_ids)
        self._open(self._request.prompt, params, self._request.options)

    def adopt_main(self, stream: EngineStream, delivered: Delivered) -> None:
        """Take over a running stream, whose stop strings vLLM applies, and what it has sent."""
        self._streams.append(stream)
        self._stops = None
        self._first, self._texts = delivered.last, delivered.decoder
        self._state.main.ids = delivered.ids
        self._emitted_texts, self._sent_characters = delivered.texts, delivered.characters

    async def close(self) -> None:
        """Stop all streams and probes, and settle the record."""
        await asyncio.gather(*(s.stop() for s in (*self._streams, *self._probes.values())))
        self._state.abort()
        controller = self._state.controller
        self._timeline.finish(controller.asked)
        self._held.clear()
        record = self._record
        record.outcome = self._request.opening.reported(self._state.outcome)
        if record.abstained is not Abstained.POLICY_ERROR and (fault := controller.fault):
            record.abstained = Abstained.POLICY_ERROR
            name = type(fault).__name__  # not the message, which may quote the reasoning
            _log.error("Policy %s failed (%s); no exit for its request.", record.policy, name)
        record.generated_tokens = sum(stream.tokens for stream in self._streams)
        record.probe_tokens = sum(probe.tokens for probe in self._probes.values())
        calls = [each for each in self._probes.values() if isinstance(each, JudgeCall)]
        record.judge_tokens = sum(call.judge_tokens for call in calls)
        if self._stopped or record.cut_at is not None:
            record.discarded_tokens = self._streams[0].tokens - self._state.kept_tokens

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
        index, name = self._record.index, f"{self._request.request_id}-{role}"
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
        skip = bool(self._request.params.skip_special_tokens)
        return TokenTexts(self._served.tokenizer, prompt_ids, skip_special_tokens=skip)

    # Input.

    async def take(self, source: Source, item: Item) -> list[RequestOutput]:
        """Handle one item of the inbox; return the outputs for the client."""
        if source in self._probe_outputs:
            ready = await self._take_probe(source, item)
        elif not self._listens_to(source) or item is None:
            return []  # from the main stream after an exit: counted, but not used
        elif isinstance(item, Exception):
            raise item
        else:
            ready = await self._take_delta(source, item)
        if self._state.done:
            ready += [held for held, _ in self._held]  # a last delta may hold no tokens
            await self.close()
        return [self._addressed(each) for each in ready]

    async def finish_thinking(self) -> list[RequestOutput]:
        """Close the thinking for a client that wants the answer; return its outputs."""
        if self._state.done:
            return []
        ready = await self._execute(self._state.finish_thinking())
        return [self._addressed(each) for each in ready]

    def _listens_to(self, stream: Source) -> bool:
        ended = self._stopped or self._state.done
        return stream is self._streams[-1] and not (ended and len(self._streams) == 1)

    async def _take_delta(self, stream: Source, output: RequestOutput) -> list[RequestOutput]:
        self._first = self._first or output
        ready = self._closing_with_logprobs(output)
        for piece, texts in self._pieces(output):
            if self._listens_to(stream):
                ready += await self._take_piece(piece, texts)
        return ready

    def _pieces(self, output: RequestOutput) -> Iterator[tuple[RequestOutput, list[str]]]:
        """Yield the parts of a delta with the texts of their tokens.

        A delta is split after ``</think>``, because vLLM 0.31's parsers lose white space that
        follows it in the same delta. With stop strings it is split into single tokens.
        """
        ids = list(output.outputs[0].token_ids)
        texts = self._texts.texts(ids)
        sizes = [1] * (len(ids) - 1) if self._stops else []
        if self._end_id in ids[:-1] and not (sizes or self._params.stop):  # vLLM may hold text back
            sizes = [ids.index(self._end_id) + 1]
        for size in sizes:
            piece, output = split_output(output, size, len("".join(texts[:size])))
            yield piece, texts[:size]
            texts = texts[size:]
        yield output, texts

    async def _take_piece(self, output: RequestOutput, texts: list[str]) -> list[RequestOutput]:
        ids = list(output.outputs[0].token_ids)
        if self._timeline.awaiting_tokens:
            self._timeline.received(output)
        if self._stops:
            answers = self._in_answer(ids, texts, self._stops)
            number = len(self._state.main.ids) + 1
            output = self._stops.take(output, number) if answers else self._stops.leave(output)
        self._held.append((output, texts))
        commands = self._state.take(ids, texts, cause_of(output.outputs[0]))
        if self._stops and self._stops.stopped:
            self._stopped = True
            await self._streams[0].stop()
        return await self._execute(commands)

    def _in_answer(self, ids: list[int], texts: list[str], stops: AnswerStops) -> bool:
        if not ids:  # the stream's end
            return bool(stops.tail)
        return self._state.controller.would_answer(ids[0], texts[0])

    async def _take_probe(self, source: Source, item: Item) -> list[RequestOutput]:
        command, outputs = self._probe_outputs[source]
        if isinstance(item, RequestOutput):
            outputs.append(item)
            return []
        if isinstance(item, TimeoutError) and self._extend(source):
            return []
        answer: Answer | None = item if isinstance(item, Reply) else None
        if item is None:
            answer = self._answer(command.spec, outputs)
        outputs.clear()
        self._timeline.probe_answered(command.probe)
        return await self._execute(self._state.end_probe(ProbeAnswered(command.probe, answer)))

    def _extend(self, stream: Source) -> bool:
        """Let a probe past its timeout continue if it is queued and the request has a seed: results
        must not depend on load. Return False after stopping it."""
        assert isinstance(stream, EngineStream)  # only these have a timeout
        if self._params.seed is not None and self._served.load.waiting:
            stream.expire_after(self._served.probe_timeout)
            return True
        task = asyncio.create_task(stream.stop())  # not awaited: it may take long as well
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
        return False

    def _answer(self, spec: ProbeSpec, outputs: Sequence[RequestOutput]) -> Answer | None:
        """Return the answer of a probe that ended; None if it has none."""
        try:
            if cause_of(outputs[-1].outputs[0]) in ("eos", "length"):
                return answer_of(spec, outputs, self._writing)
        except Exception as error:  # noqa: BLE001 - a failed probe must not fail its request
            _log.warning("The answer of a probe cannot be read: %s", type(error).__name__)
        return None

    # Commands.

    async def _execute(self, commands: Sequence[Command]) -> list[RequestOutput]:
        ready: list[RequestOutput] = []
        not_put: list[ProbeAnswered | ProbeRefused] = []
        if self._timeline.thinking:
            self._timeline.observe(self._state.controller)
        for command in commands:
            if isinstance(command, Emit):
                ready += self._emit(command.count)
            elif isinstance(command, StartProbe):
                if event := self._start_probe(command):
                    not_put.append(event)  # reported after all commands are carried out
            elif isinstance(command, CancelProbe):
                if command.probe in self._probes:
                    await self._probes[command.probe].stop()
            else:
                ready += await self._close_thinking(command)
        for event in not_put:
            ready += await self._execute(self._state.end_probe(event))
        return ready

    def _start_probe(self, command: StartProbe) -> ProbeAnswered | ProbeRefused | None:
        """Start a probe; return how it ended if it cannot be started."""
        trace = self._timeline.probe_started(command.probe)
        if isinstance(command.spec, Judge) and command.spec.url:
            return self._ask_judge(command, command.spec)
        probe = self._state.probe_for(command, self._writing)
        if probe is None:
            return ProbeAnswered(command.probe, None)
        if self._params.seed is None and (refusal := self._served.load.refusal()):
            self._record.refused_probes[refusal] += 1
            self._timeline.probe_refused(command.probe, refusal)
            return ProbeRefused(command.probe)
        stream = self._stream(
            "probe",
            probe_prompt(self._request.prompt, probe.prompt_ids),
            probe_params(probe),
            {**self._request.probe_options(priorities=self._served.priorities), **trace},
        )
        stream.expire_after(self._served.probe_timeout)
        self._probes[command.probe] = stream
        self._probe_outputs[stream] = command, []
        return None

    def _ask_judge(self, command: StartProbe, spec: Judge) -> ProbeAnswered | None:
        """Start a probe at the judge's server, which the load of this engine does not limit."""
        judge, decode = self._served.judge, self._writing.decode
        if judge is None or decode is None:
            return ProbeAnswered(command.probe, None)
        kept = self._state.ids_before(command)
        message = spec.message(decode(self._request.prompt_ids), decode(kept))
        call = JudgeCall(self._inbox, judge, self._record.index, spec, message)
        self._probes[command.probe] = call
        self._probe_outputs[call] = command, []
        return None

    def _emit(self, count: int) -> list[RequestOutput]:
        ready: list[RequestOutput] = []
        while count > 0:
            output, texts = self._held.popleft()
            if len(texts) > count:
                kept = sum(map(len, self._emitted_texts)) + sum(map(len, texts[:count]))
                output, rest = split_output(output, count, max(kept - self._sent_characters, 0))
                self._held.appendleft((rest, texts[count:]))
                texts = texts[:count]
            count -= len(texts)
            self._emitted_texts += texts
            self._sent_characters += len(output.outputs[0].text)
            ready.append(output)
        return ready

    async def _close_thinking(self, command: CloseThinking) -> list[RequestOutput]:
        assert self._first is not None
        self._timeline.truncated()
        await self._streams[0].stop()
        self._stops, self._stopped = None, False  # in the answer's stream vLLM applies them
        self._held.clear()
        state = self._state
        self._record.cut_at = state.cut_at
        if self._served.pairs:
            main, answer = state.main, state.answer.ids  # still empty; filled in place
            ended = main.cause is not None
            self._record.continuation = ContinuationInput(
                list(main.ids), ended=ended, answer=answer
            )
        prefix, closing = state.prefix_ids, state.closing_ids
        self._record.injected_tokens = len(closing)
        scored = self._served.scores_prompts
        self._open(
            extended_prompt(self._request.prompt, prefix),
            answer_params(self._params, state, scored=scored),
            {**self._request.answer_options(), **self._timeline.answer_started()},
        )
        unsent = "".join(self._emitted_texts)[self._sent_characters :]
        first, *rest = self._texts_after(prefix[: command.position]).texts(closing)
        self._texts = self._texts_after(prefix)
        self._emitted_texts, self._sent_characters = [], 0
        asked = self._params.logprobs is not None
        texts = [unsent + first, *rest]
        outputs = injected_outputs(self._first, closing, texts, logprobs=asked)
        if not (asked and scored):
            return outputs
        self._closing = outputs
        return []

    def _texts_after(self, ids: Sequence[int]) -> TokenTexts:
        return self._new_texts([*self._request.prompt_ids, *ids])

    def _closing_with_logprobs(self, answer: RequestOutput) -> list[RequestOutput]:
        """Return the injected closing with the log-probs from the first output of the answer."""
        closing, self._closing = self._closing, []
        if closing:
            logprobs = answer.prompt_logprobs
            assert logprobs is not None
            for place, output in enumerate(closing, start=len(logprobs) - len(closing)):
                output.outputs[0].logprobs = logprobs[place : place + 1]
        return closing

    def _addressed(self, output: RequestOutput) -> RequestOutput:
        """Return a delta under the client's request id instead of the internal stream's."""
        assert self._first is not None
        addressed = shallow(self._first)
        addressed.request_id = self._request.request_id
        addressed.finished = output.finished
        addressed.outputs = [shallow(output.outputs[0])]
        addressed.outputs[0].index = self._record.index
        return addressed
