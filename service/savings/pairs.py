"""Paired continuations: measure the length and the answer of a request without its exit.

After an exit, the reasoning is continued in the background from its last generated token, by
unseeded sampling from the same model. The continuation is therefore the counterfactual of this very
request, not a second attempt, and only its remaining tokens cost anything. Savings of training are
measured likewise: the base model repeats a request that no policy exits, from the beginning.

Requests are drawn for pairing at random when they end. Continuations that are dropped or fail are
counted but excluded, which adds no bias: dropping depends on the load of the server, not on the
length of the continuation.
"""

import asyncio
import contextvars
import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from service.clients.openai import RequestFailed
from service.engine.request import EngineRequest
from service.records.sequence import ContinuationInput, SequenceRecord
from service.savings.answer_comparer import Agreement, AnswerComparer
from service.savings.continuations import Continuation, ContinuationBackend
from service.savings.plan import Plan
from service.savings.predictions import Predictions
from service.savings.quality_gate import GuaranteeWatch, QualityGate
from service.savings.state.contents import Key, cell
from service.savings.state.series import EXIT, TRAINED
from service.savings.state.store import SumStore
from stepgrpo_core.families.thinking import TokenizerFormat
from stepgrpo_core.savings.baseline import Prediction
from stepgrpo_core.savings.estimators import Measured

__all__ = ["Outcome", "Pairs", "measurable"]

_log = logging.getLogger("vllm.stepgrpo")

QUEUE = 64
POLL_SECONDS = 0.2

Outcome = Literal["measured", "dropped", "failed"]
"""Outcome of a pair; dropped means that the queue was full or the server shut down."""


@dataclass(frozen=True, slots=True)
class _Pair:
    key: Key
    continuation: Continuation
    predicted: Prediction | None
    baseline: float
    """Predicted tokens that were added to the sums."""
    answer: list[int]
    """Token ids of the request's answer, compared with the continuation's."""
    guaranteed: bool
    """The thresholds' guarantee covers the request."""
    context: contextvars.Context
    """Context of the request, because the continuation belongs to the same tenant."""


def measurable(request: EngineRequest, record: SequenceRecord) -> bool:
    """Return whether a continuation of the same prompt is comparable with the sequence."""
    params = request.params
    return (
        record.counts_for_savings
        and not request.stops
        and not params.presence_penalty
        and not params.frequency_penalty  # penalties count generated tokens, not prompt tokens
        and not request.has_grammar
        and request.prompt.get("type", "token") == "token"
    )


def _cell(record: SequenceRecord) -> int:
    return cell(record.stratum, record.group)


class Pairs:
    """Draws, queues and generates pairs, and records their results. Used from one event loop."""

    def __init__(
        self,
        plan: Plan,
        store: SumStore,
        quality_gate: QualityGate,
        predictions: Predictions,
        *,
        backend: ContinuationBackend,
        writing: TokenizerFormat,
        end: str,
        ended: Callable[[Key, Outcome], None],
        watch: GuaranteeWatch | None = None,
    ) -> None:
        self._plan = plan
        self._store = store
        self._quality_gate = quality_gate
        self._watch = watch or GuaranteeWatch(store)
        self._predictions = predictions
        self._backend = backend
        self._writing = writing
        self._end_text = end  # of the thinking
        self._ended = ended
        self._comparer = AnswerComparer()
        self._queue: deque[_Pair] = deque()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispatcher = asyncio.create_task(self._dispatch())

    def add(self, request: EngineRequest, record: SequenceRecord) -> None:
        """Record a sequence that ended, and queue its pair if it is drawn."""
        if not record.counts_for_savings:
            return
        if record.continuation is None:
            if record.could_have_exited:  # no exit: saved nothing, at a known cost
                key = Key(EXIT, record.model_name, record.counted_as, _cell(record))
                tokens = record.completion_tokens
                sums = {"natural": 1, "natural_tokens": tokens, "cost": record.cost}
                self._store.add(key, sums)
                self._watch_kept(request, record)
            return
        exits = record.cut_at is not None
        policy = record.counted_as if exits else "none"
        key = Key(EXIT if exits else TRAINED, record.model_name, policy, _cell(record))
        if not measurable(request, record):
            self._store.add(key, {"unmeasurable": 1})
            return
        pair = self._pair(key, request, record, record.continuation)
        tokens = record.completion_tokens
        entry = Measured(1, tokens, saved=pair.baseline - tokens, cost=record.cost)
        self._store.add(key, entry._asdict())
        if random.random() >= self._plan.pairs:
            return
        if len(self._queue) >= QUEUE:
            self._ended(key, "dropped")
            return
        self._queue.append(pair)
        self._wake.set()

    def _watch_kept(self, request: EngineRequest, record: SequenceRecord) -> None:
        """Watch an answer without an exit, drawn like the pairs of exits: it cannot change."""
        drawn = random.random() < self._plan.pairs and len(self._queue) < QUEUE
        if "guarantee" in record.settings and measurable(request, record) and drawn:
            self._watch.record(record.model_name, record.counted_as, changed=False)

    def _pair(
        self, key: Key, request: EngineRequest, record: SequenceRecord, source: ContinuationInput
    ) -> _Pair:
        exits = key.series == EXIT
        predicted = record.predicted if exits else None
        return _Pair(
            key,
            Continuation(
                request,
                record.model_name if exits else str(self._plan.pairs_base),
                base=not exits,
                ids=source.ids,
                ended=source.ended,
                length=len(source.ids),
            ),
            predicted,
            predicted.tokens if predicted else record.completion_tokens,
            (source.answer if exits else self._after_end(source.answer)) or [],
            "guarantee" in record.settings,
            contextvars.copy_context(),
        )

    async def close(self) -> None:
        """Stop generating pairs."""
        tasks = [self._dispatcher, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for pair in self._queue:
            self._ended(pair.key, "dropped")
        self._queue.clear()
        await asyncio.to_thread(self._comparer.close)
        await self._backend.close()

    async def _dispatch(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                if len(self._tasks) < self._backend.capacity():
                    pair = self._queue.popleft()
                    task = asyncio.create_task(self._run(pair), context=pair.context.copy())
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                else:
                    await asyncio.sleep(POLL_SECONDS)

    async def _run(self, pair: _Pair) -> None:
        try:
            if not pair.continuation.ended:
                await self._backend.resume(pair.continuation)
            if not pair.continuation.ended:
                self._queue.appendleft(pair)
                self._wake.set()
                return
            agreement = await self._agreement(pair)
            self._record(pair, agreement)
        except asyncio.CancelledError:
            self._ended(pair.key, "dropped")
            raise
        except RequestFailed:
            self._ended(pair.key, "failed")  # the remote client has logged the reason
        except Exception as error:  # noqa: BLE001 - must not affect requests
            _log.warning("A paired continuation failed: %s", type(error).__name__)
            self._ended(pair.key, "failed")
        else:
            self._ended(pair.key, "measured")

    def _record(self, pair: _Pair, agreement: Agreement) -> None:
        key, length = pair.key, pair.continuation.length
        self._store.add(key, {"pairs": 1, "error": length - pair.baseline, agreement: 1})
        if key.series != EXIT:
            return
        if pair.predicted is not None:
            self._predictions.record(key.model, key.policy, pair.predicted, length)
        if agreement != "unjudged":
            self._quality_gate.record(key.model, key.policy, agreed=agreement == "agreed")
            if pair.guaranteed:
                self._watch.record(key.model, key.policy, changed=agreement == "differed")

    async def _agreement(self, pair: _Pair) -> Agreement:
        other = self._answer(pair.continuation)
        if not pair.answer or not other:
            return "unjudged"  # one of them has no answer
        return await self._comparer.compare(self._decode(pair.answer), other)

    def _answer(self, continuation: Continuation) -> str | None:
        """Return the answer of a continuation, or None if its thinking never ended."""
        answer_ids = self._after_end(continuation.ids)
        if answer_ids is not None:
            return self._decode(answer_ids) + (continuation.text or "")
        thinking = self._writing.thinking
        text = (
            self._decode(continuation.ids) + (continuation.text or "")
            if thinking.end_text
            else continuation.text
        )
        if text is None:
            return None
        _, found, answer = text.partition(self._end_text)
        return answer if found else None

    def _after_end(self, ids: list[int]) -> list[int] | None:
        """Return the ids after the thinking, or None if it never ended."""
        thinking = self._writing.thinking
        end = [*thinking.before_end, thinking.end_id]
        stops = range(len(end), len(ids) + 1)
        stop = next((i for i in stops if ids[i - len(end) : i] == end), None)
        return None if stop is None else ids[stop:]

    def _decode(self, ids: list[int]) -> str:
        assert self._writing.decode is not None
        return self._writing.decode(ids)
