"""Savings measurement as hooks of the engine client, called for every request."""

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prometheus_client.metrics_core import Metric

from service.clients.openai import Address, OpenAIClient
from service.engine.hooks import EngineHooks
from service.engine.policy_resolver import PolicyResolver
from service.engine.request import EngineRequest, ServedModel
from service.params import Effective
from service.records.metrics import Metrics
from service.records.sequence import ContinuationInput, SequenceRecord
from service.records.trust import Trust
from service.savings.continuations import ContinuationBackend, EngineBackend, RemoteBackend
from service.savings.facts import settings_facts, weights_digest
from service.savings.holdout import add_outcome, as_control, contrast_of, is_eligible
from service.savings.pairs import Pairs
from service.savings.plan import KEY_VARIABLE, SECONDS, Plan
from service.savings.predictions import Predictions
from service.savings.quality_gate import GuaranteeWatch, QualityGate
from service.savings.report import ReportCollector
from service.savings.state.store import SumStore
from service.savings.state.strata import Strata
from stepgrpo_core import Baseline, ExitSettings
from stepgrpo_core.fingerprint import text_fingerprint
from stepgrpo_core.savings.holdout import GROUPS, Arm, Holdout

__all__ = ["SavingsMeasurement", "open_measurement"]


def open_measurement(
    plan: Plan, models: Mapping[str | None, Path], calibration: Path | None
) -> "SavingsMeasurement | None":
    """Return the measurement of `plan`, or None if nothing is measured. `models` are the
    folders of the served models by adapter, None for the base model. Raises InvalidSetting."""
    if not plan.measures and not plan.state:
        return None
    found = SavingsMeasurement(
        plan, SumStore(plan.state), {k: weights_digest(v) for k, v in models.items()}
    )
    if calibration is not None:
        found.facts["calibration"] = weights_digest(calibration)
    return found


class SavingsMeasurement(EngineHooks):
    """Assigns conversations to arms, generates pairs, gates quality, and tracks trust in
    predictions."""

    def __init__(
        self, plan: Plan, store: SumStore, weights: Mapping[str | None, str] = MappingProxyType({})
    ) -> None:
        self.plan = plan
        self.store = store
        self.facts: dict[str, Any] = {}
        """Facts that decide how requests are served, besides the server's settings."""
        self._weights = weights
        self._strata = Strata(store)
        self.quality_gate = QualityGate(store, plan, self._strata.fingerprint)
        self.watch = GuaranteeWatch(store, self._strata.fingerprint)
        self.predictions = Predictions(store, self._strata.fingerprint)
        self._holdout = Holdout(plan.holdout, store.secret("holdout"))
        self._pairs: Pairs | None = None
        self._report = ReportCollector(store)
        store.add_watcher(self._update)

    # Lifecycle, in one event loop

    @property
    def makes_pairs(self) -> bool:  # type: ignore[override]
        """True if truncated reasoning is continued."""
        return bool(self.plan.pairs)

    def start(
        self, served: ServedModel, metrics: Metrics, name: str, resolver: PolicyResolver
    ) -> None:
        """Start counting, and generating pairs if the model thinks. `name` is the model's."""
        settings = settings_facts(self.plan, resolver.defaults, resolver.limits, resolver.effort)
        self._strata.begin({**settings, **self.facts})
        self.watch.start(resolver.calibrated.thresholds if resolver.calibrated else None)
        for adapter, weights in self._weights.items():
            self._strata.number(adapter or name, self._with_base(adapter, weights))
        if not self.plan.pairs or served.writing is None:
            return
        thinking = served.writing.thinking
        ids = [*thinking.before_end, thinking.end_id]
        end = thinking.end_text or served.tokenizer.decode(ids, skip_special_tokens=False)
        self._pairs = Pairs(
            self.plan,
            self.store,
            self.quality_gate,
            self.predictions,
            backend=self._backend(served, metrics),
            writing=served.writing,
            end=end,
            watch=self.watch,
            ended=lambda key, outcome: metrics.paired(key.model, key.policy, outcome),
        )

    def _backend(self, served: ServedModel, metrics: Metrics) -> ContinuationBackend:
        if self.plan.pairs_url is None:
            return EngineBackend(served, self.plan.pairs_load, metrics.ran_pairs)
        key = os.environ.get(KEY_VARIABLE, "").strip() or None
        return RemoteBackend(
            OpenAIClient(Address(self.plan.pairs_url, SECONDS, key), "server of pairs")
        )

    async def stop(self) -> None:
        """Stop generating pairs; recorded ones are kept."""
        pairs, self._pairs = self._pairs, None
        if pairs is not None:
            await pairs.close()

    def _update(self) -> None:
        """Update from the store, every second in the store's thread."""
        self.watch.update()
        self.quality_gate.update()
        self.predictions.refresh()
        if self._holdout.key != self.store.secret("holdout"):  # the file was replaced
            self._holdout = Holdout(self.plan.holdout, self.store.secret("holdout"))

    def _with_base(self, adapter: str | None, weights: str) -> str:
        """Combine an adapter's digest with that of its base model."""
        return weights if adapter is None else f"{self._weights.get(None)}-{weights}"

    # Requests

    def assign_stratum(self, request: EngineRequest, records: Sequence[SequenceRecord]) -> None:
        """Set the stratum of a request as it arrived. An adapter that was loaded at runtime is
        identified by its path, because reading its weights would take time."""
        lora = request.options.get("lora_request")
        weights = self._weights.get(request.adapter)
        if lora is not None and weights is None:
            weights = text_fingerprint(f"{lora.lora_path} {lora.lora_int_id}")
        found = self._with_base(request.adapter, weights or "")
        for each in records:
            each.stratum = self._strata.number(each.model_name, found)

    def assign_arm(
        self, request: EngineRequest, effective: Effective, conversation: bytes | None
    ) -> Arm | None:
        """Return the experiment arm of a request, or None if it is not eligible or has no
        conversation."""
        if not self.plan.holdout or conversation is None:
            return None
        if not is_eligible(self.plan, request, effective):
            return None
        return self._holdout.assign(conversation)

    def as_control(
        self, request: EngineRequest, settings: ExitSettings
    ) -> tuple[EngineRequest, ExitSettings]:
        """Return the request and settings that serve it in the control arm."""
        return as_control(self.plan, request, settings)

    def prepare(
        self, records: Sequence[SequenceRecord], conversation: bytes | None, *, exits: bool
    ) -> None:
        """Prepare records for a paired continuation."""
        group = self._group(conversation)
        for record in records:
            record.group = group
            if not exits and self._base_may_repeat(record):
                record.continuation = ContinuationInput()

    def _group(self, conversation: bytes | None) -> int:
        """Return the random group of a conversation; a random one without a conversation."""
        if conversation is None:
            return random.randrange(GROUPS)
        return self._holdout.assign(conversation).group

    def _base_may_repeat(self, record: SequenceRecord) -> bool:
        """Return whether the base model may repeat a sequence that no policy exits."""
        base = self.plan.pairs_base
        if self._pairs is None or base is None or base == record.model_name:
            return False
        held = record.arm is not None and record.arm.control
        # The base model has already served the control arm of a training contrast.
        return not held or contrast_of(self.plan, record.adapter) == "exit"

    def trust(self, model: str, policy: str) -> Trust:
        """Return the trust in predictions for `model` under `policy`."""
        return self.predictions.trust(model, policy)

    def is_off(self, model: str, policy: str) -> bool:
        """Return whether the quality gate has switched `policy` off for `model`."""
        return self.quality_gate.is_off(model, policy)

    def ended(
        self, request: EngineRequest, record: SequenceRecord, baseline: Baseline | None
    ) -> None:
        """Record a sequence, however it ended."""
        if record.arm is not None:
            contrast = contrast_of(self.plan, record.adapter)
            add_outcome(self.store, record, record.arm, baseline, contrast)
        if self._pairs is not None:
            self._pairs.add(request, record)

    # Metrics

    def describe(self) -> list[Metric]:
        """Return nothing, so that registration computes no metric."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of a scrape."""
        for each in (self._report, self.quality_gate, self.watch, self.predictions):
            yield from each.collect()

    def warnings(self) -> list[str]:
        """Return warnings for the operator."""
        off = self.quality_gate.off
        switched = [f"policy {each.policy} is switched off for {each.model}" for each in off]
        return [*switched, *self.store.warnings()]

    def close(self) -> None:
        """Write pending sums; may wait for the file."""
        self.store.close()
