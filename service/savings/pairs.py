"""Paired runs: what a request would have taken, measured.

After an exit the un-exited run is made in the background: the request's own reasoning is gone on
with, from the last token that was generated, by free draws from the same model. So the pair is
what would have come, not another try, and only its rest costs anything. Savings of training are
measured likewise: a request that nothing exits is run by the base model, from the beginning.

Which requests are paired is drawn at random when they end. A run that could not be made is left
out, and counted: for being dropped it matters how busy the server was, not how long the run is.
"""

import asyncio
import contextvars
import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from service.clients.openai import Failed
from service.engine.request import EngineRequest
from service.records.sequence import Follows, SequenceRecord
from service.savings.answer_comparer import Agreement, AnswerComparer
from service.savings.continuations import Run, Runs
from service.savings.plan import Plan
from service.savings.predictions import Predictions
from service.savings.quality_gate import QualityGate
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
"""Of a pair; dropped: too many waited, or the server ended."""


@dataclass(frozen=True, slots=True)
class _Pair:
    key: Key
    run: Run
    predicted: Prediction | None
    baseline: float
    """Tokens that were entered as predicted."""
    answer: list[int]
    """Ids of the request's, to compare the run's with."""
    context: contextvars.Context
    """Of the request: the run is its tenant's, too."""


def measurable(job: EngineRequest, record: SequenceRecord) -> bool:
    """Whether a sequence that ended can be compared with a run of the same prompt."""
    params = job.params
    return (
        record.told
        and not job.stops
        and not params.presence_penalty
        and not params.frequency_penalty  # they count what was generated, not what is a prompt
        and not job.has_grammar
        and job.prompt.get("type", "token") == "token"
    )


def _cell_of(record: SequenceRecord) -> int:
    return cell(record.stratum, record.group)


class Pairs:
    """Draws, queues and makes pairs, and enters what they show. One event loop's."""

    def __init__(
        self,
        plan: Plan,
        store: SumStore,
        guard: QualityGate,
        predictions: Predictions,
        *,
        runs: Runs,
        writing: TokenizerFormat,
        end: str,
        ended: Callable[[Key, Outcome], None],
    ) -> None:
        self._plan = plan
        self._store = store
        self._guard = guard
        self._predictions = predictions
        self._runs = runs
        self._writing = writing
        self._end = end  # of the thinking, as text
        self._ended = ended
        self._judges = AnswerComparer()
        self._queue: deque[_Pair] = deque()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispatcher = asyncio.create_task(self._dispatch())

    def offer(self, job: EngineRequest, record: SequenceRecord) -> None:
        """Enter a sequence that ended, and queue its pair if it is drawn."""
        if not record.told:
            return
        if record.follows is None:
            if record.acted:  # nothing was cut: what it saved is known, and what it cost
                key = Key(EXIT, record.model_name, record.counted_as, _cell_of(record))
                tokens = record.completion_tokens
                sums = {"natural": 1, "natural_tokens": tokens, "cost": record.cost}
                self._store.add(key, sums)
            return
        exits = record.cut_at is not None
        policy = record.counted_as if exits else "none"
        key = Key(EXIT if exits else TRAINED, record.model_name, policy, _cell_of(record))
        if not measurable(job, record):
            self._store.add(key, {"unmeasurable": 1})
            return
        pair = self._pair(key, job, record, record.follows)
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

    def _pair(
        self, key: Key, job: EngineRequest, record: SequenceRecord, follows: Follows
    ) -> _Pair:
        exits = key.series == EXIT
        predicted = record.predicted if exits else None
        return _Pair(
            key,
            Run(
                job,
                record.model_name if exits else str(self._plan.pairs_base),
                base=not exits,
                ids=follows.ids,
                ended=follows.ended,
                length=len(follows.ids),
            ),
            predicted,
            predicted.tokens if predicted else record.completion_tokens,
            (follows.answer if exits else self._after_end(follows.answer)) or [],
            contextvars.copy_context(),
        )

    async def close(self) -> None:
        """Make no more of them."""
        tasks = [self._dispatcher, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for pair in self._queue:
            self._ended(pair.key, "dropped")
        self._queue.clear()
        await asyncio.to_thread(self._judges.close)
        await self._runs.close()

    async def _dispatch(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                if len(self._tasks) < self._runs.room():
                    pair = self._queue.popleft()
                    task = asyncio.create_task(self._make(pair), context=pair.context.copy())
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                else:
                    await asyncio.sleep(POLL_SECONDS)

    async def _make(self, pair: _Pair) -> None:
        try:
            if not pair.run.ended:
                await self._runs.go_on(pair.run)
            if not pair.run.ended:
                self._queue.appendleft(pair)
                self._wake.set()
                return
            agreement = await self._agreement(pair)
            self._enter(pair, agreement)
        except asyncio.CancelledError:
            self._ended(pair.key, "dropped")
            raise
        except Failed:
            self._ended(pair.key, "failed")  # its server's log says more
        except Exception as error:  # noqa: BLE001 - nothing of it may reach a request
            _log.warning("A paired run failed: %s", type(error).__name__)
            self._ended(pair.key, "failed")
        else:
            self._ended(pair.key, "measured")

    def _enter(self, pair: _Pair, agreement: Agreement) -> None:
        key, length = pair.key, pair.run.length
        self._store.add(key, {"pairs": 1, "error": length - pair.baseline, agreement: 1})
        if key.series != EXIT:
            return
        if pair.predicted is not None:
            self._predictions.enter(key.model, key.policy, pair.predicted, length)
        if agreement != "unjudged":
            self._guard.enter(key.model, key.policy, agreed=agreement == "agreed")

    async def _agreement(self, pair: _Pair) -> Agreement:
        other = self._answer(pair.run)
        if not pair.answer or not other:
            return "unjudged"  # one never came to an answer
        return await self._judges.compare(self._decode(pair.answer), other)

    def _answer(self, run: Run) -> str | None:
        """What a run answered; None where its thinking never ended."""
        begun = self._after_end(run.ids)
        if begun is not None:
            return self._decode(begun) + (run.text or "")
        thinking = self._writing.thinking
        text = self._decode(run.ids) + (run.text or "") if thinking.end_text else run.text
        if text is None:
            return None
        _, found, answer = text.partition(self._end)
        return answer if found else None

    def _after_end(self, ids: list[int]) -> list[int] | None:
        """What follows the thinking; None where it never ended."""
        thinking = self._writing.thinking
        end = [*thinking.before_end, thinking.end_id]
        places = range(len(end), len(ids) + 1)
        found = (place for place in places if ids[place - len(end) : place] == end)
        place = next(found, None)
        return None if place is None else ids[place:]

    def _decode(self, ids: list[int]) -> str:
        assert self._writing.decode is not None
        return self._writing.decode(ids)
