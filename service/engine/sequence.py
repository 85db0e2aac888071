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

from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams

from service.engine.request import EngineRequest, ServedModel, cause_of
from service.records.reasons import Abstained
from service.records.sequence import ContinuationInput, SequenceRecord
from service.streams.detokenizer import Delivered, TokenTexts
from service.streams.engine_streams import (
    addressed,
    answer_in,
    answer_params,
    closing_with_logprobs,
    extended_prompt,
    injected_outputs,
    main_params,
    pieces,
    probe_params,
    probe_prompt,
    split_output,
)
from service.streams.inbox import EngineStream, Inbox, Item, Source
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
from stepgrpo_core.policies import Answer, Judge, Reply

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
        held_back = bool(self._params.stop) and self._stops is None
        self._divides = self._params.detokenize and not held_back  # vLLM sends all text at once
        self._stopped = False  # one of them has ended the main stream
        self._texts = self._new_texts(request.prompt_ids)
        self._streams: list[EngineStream] = []  # main, then the answer's
        self._probes: dict[int, EngineStream | JudgeCall] = {}
        self._probe_outputs: dict[Source, tuple[StartProbe, list[RequestOutput]]] = {}
        self._held: deque[tuple[RequestOutput, Sequence[str]]] = deque()
        self._emitted_texts: list[str] = []  # one per emitted token
        self._sent_characters = 0  # less than their text while a stop string holds some back
        self._first: RequestOutput | None = None
        self._closing: list[RequestOutput] = []  # injected, waiting for log-probs
        self._stopping: set[asyncio.Task[None]] = set()

    # Streams.

    def open_main(self) -> None:
        """Start the main stream."""
        request, params = self._request, self._params
        params = without_stops(params, request.stop_ids) if self._stops else params
        self._streams.append(self._stream("run", request.prompt, params, request.options))

    def adopt_main(
        self, stream: EngineStream, state: SequenceState, texts: TokenTexts, delivered: Delivered
    ) -> None:
        """Take over a running stream, whose stop strings vLLM applies, and what it has sent."""
        self._streams.append(stream)
        self._stops = None
        self._divides = self._params.detokenize and not self._params.stop
        self._state, self._texts, self._first = state, texts, delivered.last
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

    def _stream(
        self,
        role: str,
        prompt: Mapping[str, Any],
        params: SamplingParams,
        options: Mapping[str, Any],
    ) -> EngineStream:
        index, name = self._record.index, f"{self._request.request_id}-{role}"
        stream = EngineStream(
            self._served.engine,
            sequence=index,
            request_id=name,
            prompt=prompt,
            params=params,
            options=options,
            load=self._served.load,
            probe=role == "probe",
        )
        stream.feed(self._inbox)
        return stream

    def _new_texts(self, prompt_ids: Sequence[int]) -> TokenTexts:
        skip = bool(self._request.params.skip_special_tokens)
        return TokenTexts(self._served.tokenizer, prompt_ids, skip_special_tokens=skip)

    # Input.

    async def take(self, source: Source, item: Item) -> list[RequestOutput]:
        """Handle one item of the inbox; return the outputs for the client."""
        if source in self._probe_outputs:
            ready = await self._take_probe(source, item)
        elif not self._listens_to(source) or item is None or isinstance(item, Reply):
            return []  # from the main stream after an exit: counted, but not used
        elif isinstance(item, Exception):
            raise item
        elif self._flows(item):
            ready = await self._take_piece(item, self._texts_of(item.outputs[0]))
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

    def _flows(self, output: Any) -> bool:
        """Return whether a delta needs no division, as nearly all."""
        if self._stops or self._closing or self._first is None:
            return False
        ids = output.outputs[0].token_ids
        whole = len(ids) <= 1 or self._end_id not in ids
        return whole or self._state.answering or bool(self._params.stop)

    def _texts_of(self, completion: CompletionOutput) -> list[str] | None:
        """Return the texts of a delta's tokens; None in the answer, where they decide nothing."""
        if self._state.answering and not self._held:
            return None
        return self._texts.texts(completion.token_ids, completion.text if self._divides else None)

    async def _take_delta(self, stream: Source, output: RequestOutput) -> list[RequestOutput]:
        self._first = self._first or output
        ready = [*closing_with_logprobs(self._closing, output)]
        self._closing = []
        for piece, texts in self._pieces(output):
            if self._listens_to(stream):
                ready += await self._take_piece(piece, texts)
        return ready

    def _pieces(self, output: RequestOutput) -> Iterator[tuple[RequestOutput, Sequence[str]]]:
        """Return the parts of a delta with the texts of their tokens.

        A delta is split after ``</think>``, because vLLM 0.31's parsers lose white space that
        follows it in the same delta. With stop strings it is split into single tokens.
        """
        completion = output.outputs[0]
        ids = list(completion.token_ids)
        texts = self._texts.texts(ids, completion.text if self._divides else None)
        sizes = [1] * (len(ids) - 1) if self._stops else []
        if self._end_id in ids[:-1] and not (sizes or self._params.stop):  # vLLM may hold text back
            sizes = [ids.index(self._end_id) + 1]
        return pieces(output, texts, sizes)

    async def _take_piece(
        self, output: RequestOutput, texts: Sequence[str] | None
    ) -> list[RequestOutput]:
        completion = output.outputs[0]
        ids = completion.token_ids
        if self._timeline.awaiting_tokens:
            self._timeline.received(output)
        if self._stops and texts is not None:
            answers = self._in_answer(ids, texts, self._stops)
            number = len(self._state.main.ids) + 1
            output = self._stops.take(output, number) if answers else self._stops.leave(output)
        commands = self._state.take(ids, texts, cause_of(output.outputs[0]))
        if self._is_all_sent(commands, len(ids)):
            self._sent(output, texts or ())
            if self._timeline.thinking:
                self._timeline.observe(self._state.controller)
            return [output]
        self._held.append((output, texts if texts is not None else [""] * len(ids)))
        if self._stops and self._stops.stopped:
            self._stopped = True
            await self._streams[0].stop()
        return await self._execute(commands)

    def _is_all_sent(self, commands: Sequence[Command], tokens: int) -> bool:
        """Return whether a delta is sent as it is and nothing else happens, as for most tokens."""
        alone = len(commands) == 1 and not self._held and not self._stops
        return alone and isinstance(commands[0], Emit) and commands[0].count == tokens

    def _sent(self, output: RequestOutput, texts: Sequence[str]) -> None:
        self._emitted_texts += texts
        self._sent_characters += len(output.outputs[0].text)

    def _in_answer(self, ids: Sequence[int], texts: Sequence[str], stops: AnswerStops) -> bool:
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
            answer = answer_in(command.spec, outputs, self._writing)
        outputs.clear()
        self._timeline.probe_answered(command.probe)
        return await self._execute(self._state.end_probe(ProbeAnswered(command.probe, answer)))

    def _extend(self, stream: Source) -> bool:
        """Let a probe past its timeout continue if it is queued and the request has a seed: results
        must not depend on load. Return False after stopping it."""
        assert isinstance(stream, EngineStream)  # only these have a timeout
        if self._params.seed is not None and self._served.load.waiting:
            stream.expire_after(self._served.probe_timeout, self._inbox)
            return True
        task = asyncio.create_task(stream.stop())  # not awaited: it may take long as well
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
        return False

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
        stream.expire_after(self._served.probe_timeout, self._inbox)
        self._probes[command.probe] = stream
        self._probe_outputs[stream] = command, []
        return None

    def _ask_judge(self, command: StartProbe, spec: Judge) -> ProbeAnswered | None:
        """Start a probe at the judge's server, which the load of this engine does not limit."""
        judge, decode = self._served.judge, self._writing.decode
        if judge is None or decode is None:
            return ProbeAnswered(command.probe, None)
        kept = decode(self._state.ids_before(command))
        message = spec.message(decode(self._request.prompt_ids), kept)
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
            self._sent(output, texts)
            ready.append(output)
        return ready

    async def _close_thinking(self, command: CloseThinking) -> list[RequestOutput]:
        assert self._first is not None
        self._timeline.truncated()
        await self._streams[0].stop()
        self._divides = self._params.detokenize and not self._params.stop
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
        prompt = extended_prompt(self._request.prompt, prefix)
        params = answer_params(self._params, state, scored=scored)
        options = {**self._request.answer_options(), **self._timeline.answer_started()}
        self._streams.append(self._stream("run", prompt, params, options))
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

    def _addressed(self, output: RequestOutput) -> RequestOutput:
        """Return a delta as one of the client's request instead of the internal stream's."""
        output.outputs[0].index = self._record.index
        if self._state.close is None:
            output.request_id = self._request.request_id
            return output
        assert self._first is not None
        return addressed(output, self._first, self._request.request_id)
