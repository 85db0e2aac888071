"""All that shows what was saved, as the engine sees it: one object, told of every request."""

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prometheus_client.metrics_core import Metric

from service.clients.openai import Address, Remote
from service.engine.hooks import EngineHooks
from service.engine.policy_resolver import PolicyResolver
from service.engine.request import EngineRequest, ServedModel
from service.params import Effective
from service.records.metrics import Metrics
from service.records.sequence import Follows, SequenceRecord
from service.records.trust import Trust
from service.savings.continuations import EngineRuns, RemoteRuns, Runs
from service.savings.facts import digest_of, settings_facts, weights_of
from service.savings.holdout import compared, enter, takes_part, withheld
from service.savings.pairs import Pairs
from service.savings.plan import KEY_VARIABLE, SECONDS, Plan
from service.savings.predictions import Predictions
from service.savings.quality_gate import QualityGate
from service.savings.report import ReportCollector
from service.savings.state.store import SumStore
from service.savings.state.strata import Strata
from stepgrpo_core import Baseline, ExitSettings
from stepgrpo_core.savings.holdout import GROUPS, Arm, Holdout

__all__ = ["SavingsMeasurement", "open_measurement"]


def open_measurement(
    plan: Plan, models: Mapping[str | None, Path], calibration: Path | None
) -> "SavingsMeasurement | None":
    """What a plan asks for; None where nothing is measured. `models` are the folders of what is
    served, by adapter, None for the model itself. Raises InvalidSetting."""
    if not plan.measures and not plan.state:
        return None
    found = SavingsMeasurement(
        plan, SumStore(plan.state), {k: weights_of(v) for k, v in models.items()}
    )
    if calibration is not None:
        found.facts["calibration"] = weights_of(calibration)
    return found


class SavingsMeasurement(EngineHooks):
    """Deals conversations, has pairs made, guards quality, and knows how far to trust
    predictions."""

    def __init__(
        self, plan: Plan, store: SumStore, weights: Mapping[str | None, str] = MappingProxyType({})
    ) -> None:
        self.plan = plan
        self.store = store
        self.facts: dict[str, Any] = {}
        """What decides how requests are served, beside the server's settings."""
        self._weights = weights
        self._strata = Strata(store)
        self.guard = QualityGate(store, plan, self._strata.fingerprint)
        self.predictions = Predictions(store, self._strata.fingerprint)
        self._dealer = Holdout(plan.holdout, store.secret("holdout"))
        self._pairs: Pairs | None = None
        self._report = ReportCollector(store)
        store.watch(self._look_on)

    # Lifecycle: in one event loop.

    @property
    def makes_pairs(self) -> bool:  # type: ignore[override]
        """Whether truncated reasoning is continued."""
        return bool(self.plan.pairs)

    def start(
        self, served: ServedModel, metrics: Metrics, name: str, decider: PolicyResolver
    ) -> None:
        """Begin to count, and to make pairs where the model thinks. `name` is the model's."""
        settings = settings_facts(self.plan, decider.defaults, decider.limits, decider.effort)
        self._strata.begin({**settings, **self.facts})
        for adapter, weights in self._weights.items():
            self._strata.number(adapter or name, self._over_base(adapter, weights))
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

    def _runs(self, served: ServedModel, metrics: Metrics) -> Runs:
        if self.plan.pairs_url is None:
            return EngineRuns(served, self.plan.pairs_load, metrics.ran_pairs)
        key = os.environ.get(KEY_VARIABLE, "").strip() or None
        return RemoteRuns(Remote(Address(self.plan.pairs_url, SECONDS, key), "server of pairs"))

    async def stop(self) -> None:
        """Make no more pairs; what is entered stays."""
        pairs, self._pairs = self._pairs, None
        if pairs is not None:
            await pairs.close()

    def _look_on(self) -> None:
        """In the store's thread, every second."""
        self.guard.look()
        self.predictions.refresh()
        if self._dealer.key != self.store.secret("holdout"):  # another file, shared with others
            self._dealer = Holdout(self.plan.holdout, self.store.secret("holdout"))

    def _over_base(self, adapter: str | None, weights: str) -> str:
        """Of an adapter with the model it is over."""
        return weights if adapter is None else f"{self._weights.get(None)}-{weights}"

    # Requests.

    def sort(self, job: EngineRequest, records: Sequence[SequenceRecord]) -> None:
        """Put a request, as it came, into its stratum. An adapter that was loaded meanwhile is told
        by where it came from: reading it would take time."""
        lora = job.options.get("lora_request")
        weights = self._weights.get(job.adapter)
        if lora is not None and weights is None:
            weights = digest_of(f"{lora.lora_path} {lora.lora_int_id}")
        found = self._over_base(job.adapter, weights or "")
        for each in records:
            each.stratum = self._strata.number(each.model_name, found)

    def place(
        self, job: EngineRequest, effective: Effective, conversation: bytes | None
    ) -> Arm | None:
        """Where the holdout deals a request; None for one that asked for something itself, that
        nothing could be withheld from, or that shares its beginning with no other."""
        if not self.plan.holdout or conversation is None:
            return None
        if not takes_part(self.plan, job, effective):
            return None
        return self._dealer.assign(conversation)

    def withheld(
        self, job: EngineRequest, settings: ExitSettings
    ) -> tuple[EngineRequest, ExitSettings]:
        """A request as it is served when it is held out."""
        return withheld(self.plan, job, settings)

    def prepare(
        self, records: Sequence[SequenceRecord], conversation: bytes | None, *, exits: bool
    ) -> None:
        """Make room for what a paired run needs to know."""
        group = self._group(conversation)
        for record in records:
            record.group = group
            if not exits and self._follows(record):
                record.follows = Follows()

    def _group(self, conversation: bytes | None) -> int:
        """The random group of a conversation; any for a request of none."""
        if conversation is None:
            return random.randrange(GROUPS)
        return self._dealer.assign(conversation).group

    def _follows(self, record: SequenceRecord) -> bool:
        """Whether a run of the base model may follow a sequence that nothing exits."""
        base = self.plan.pairs_base
        if self._pairs is None or base is None or base == record.model_name:
            return False
        held = record.place is not None and record.place.control
        return not held or compared(self.plan, record.adapter) == "exit"  # else the base served it

    def trust(self, model: str, policy: str) -> Trust:
        """How far predictions for `model` under `policy` can be trusted."""
        return self.predictions.trust(model, policy)

    def is_off(self, model: str, policy: str) -> bool:
        """Whether the quality gate has switched `policy` off for `model`."""
        return self.guard.is_off(model, policy)

    def ended(self, job: EngineRequest, record: SequenceRecord, baseline: Baseline | None) -> None:
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
        switched = [f"policy {each.policy} is switched off for {each.model}" for each in off]
        return [*switched, *self.store.complaints()]

    def close(self) -> None:
        """Write what is pending, which may wait for the file."""
        self.store.close()
