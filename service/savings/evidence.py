"""All that shows what was saved, as the engine sees it: one object, told of every request."""

import asyncio
import os
import random
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from service.controls import Effective
from service.job import Job, Served
from service.ledger import SequenceRecord
from service.metrics import Metrics
from service.remote import Address, Remote
from service.savings.holdout import compared, enter, takes_part, withheld
from service.savings.pairs import Pairs
from service.savings.plan import KEY_VARIABLE, SECONDS, Plan
from service.savings.predictions import Predictions
from service.savings.quality import QualityGuard
from service.savings.report import ReportCollector
from service.savings.runs import EngineRuns, RemoteRuns, Runs
from service.savings.store import SumStore
from stepgrpo_core import Baseline, ExitSettings
from stepgrpo_core.holdout import GROUPS, Holdout, Place

__all__ = ["Evidence", "open_evidence"]

EVERY_SECONDS = 1.0


def open_evidence(plan: Plan) -> "Evidence | None":
    """What a plan asks for; None where nothing is measured. Raises InvalidSetting."""
    return Evidence(plan, SumStore(plan.state)) if plan.measures or plan.state else None


class Evidence:
    """Deals conversations, has pairs made, guards quality, and knows how far to trust
    predictions."""

    def __init__(self, plan: Plan, store: SumStore) -> None:
        self.plan = plan
        self.store = store
        self.guard = QualityGuard(store, plan)
        self.predictions = Predictions(store)
        self._dealer = Holdout(plan.holdout, store.secret("holdout"))
        self._pairs: Pairs | None = None
        self._watch: asyncio.Task[None] | None = None
        self._report = ReportCollector(store)

    # Its life: in one event loop.

    def start(self, served: Served, metrics: Metrics) -> None:
        """Begin to watch, and to make pairs where the model thinks."""
        self._watch = asyncio.create_task(self._look_on())
        if not self.plan.pairs or served.writing is None:
            return
        thinking = served.writing.thinking
        ids = [*thinking.before_end, thinking.end_id]
        end = thinking.end_text or served.tokenizer.decode(ids, skip_special_tokens=False)
        self._pairs = Pairs(
            self.plan,
            self.store,
            self.guard,
            self.predictions,
            runs=self._runs(served, metrics),
            writing=served.writing,
            end=end,
            ended=lambda key, outcome: metrics.paired(key.model, key.policy, outcome),
        )

    def _runs(self, served: Served, metrics: Metrics) -> Runs:
        if self.plan.pairs_url is None:
            return EngineRuns(served, self.plan.pairs_load, metrics.ran_pairs)
        key = os.environ.get(KEY_VARIABLE, "").strip() or None
        return RemoteRuns(Remote(Address(self.plan.pairs_url, SECONDS, key), "server of pairs"))

    async def stop(self) -> None:
        """Make no more pairs; what is entered stays."""
        for task in filter(None, [self._watch]):
            task.cancel()
            await asyncio.wait([task])
        pairs, self._pairs = self._pairs, None
        if pairs is not None:
            await pairs.close()

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await asyncio.to_thread(self._refresh)

    def _refresh(self) -> None:
        self.guard.refresh()
        self.predictions.refresh()

    # Requests.

    def place(self, job: Job, effective: Effective, conversation: bytes | None) -> Place | None:
        """Where the holdout deals a request; None for one that asked for something itself, that
        nothing could be withheld from, or that shares its beginning with no other."""
        if not self.plan.holdout or conversation is None:
            return None
        if not takes_part(self.plan, job, effective):
            return None
        return self._dealer.place(conversation)

    def withheld(self, job: Job, settings: ExitSettings) -> tuple[Job, ExitSettings]:
        """A request as it is served when it is held out."""
        return withheld(self.plan, job, settings)

    def group(self, conversation: bytes | None) -> int:
        """The random group of a conversation; any for a request of none."""
        if conversation is None:
            return random.randrange(GROUPS)
        return self._dealer.place(conversation).group

    def follows(self, record: SequenceRecord) -> bool:
        """Whether a run of the base model may follow a sequence that nothing exits."""
        base = self.plan.pairs_base
        if self._pairs is None or base is None or base == record.model_name:
            return False
        held = record.place is not None and record.place.held
        return not held or compared(self.plan, record.adapter) == "exit"  # else the base served it

    def ended(self, job: Job, record: SequenceRecord, baseline: Baseline | None) -> None:
        """Enter a sequence, whatever became of it."""
        if record.place is not None:
            against = compared(self.plan, record.adapter)
            enter(self.store, record, record.place, baseline, against)
        if self._pairs is not None:
            self._pairs.offer(job, record)

    # Metrics.

    def describe(self) -> list[Metric]:
        """Nothing in advance: it would be computed twice."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What Prometheus gets."""
        for each in (self._report, self.guard, self.predictions):
            yield from each.collect()

    def complaints(self) -> list[str]:
        """What people should know who ask whether the server is well."""
        off = self.guard.off
        return [f"policy {each.policy} is switched off for {each.model}" for each in off]

    def close(self) -> None:
        """Write what is pending."""
        self.store.close()
