"""Sums of the randomized holdout: tokens of the treatment and the control arm.

Only requests that the server's default policy controls take part. A request that names a policy, a
budget or an effort gets what it asks for.

The control arm is served by the same model without exits. If the plan names a base model, the
control arm of a trained model (an adapter) is served by that base model instead. That is a
different contrast, with sums of its own.
"""

import dataclasses

from service.engine.request import EngineRequest
from service.params import Effective
from service.records.sequence import SequenceRecord
from service.savings.plan import Plan
from service.savings.state.contents import Key, cell
from service.savings.state.series import ArmName, Contrast, holdout_series
from service.savings.state.store import SumStore
from stepgrpo_core import Baseline, ExitSettings
from stepgrpo_core.savings.estimators import ServedTokens
from stepgrpo_core.savings.holdout import Arm

__all__ = ["add_outcome", "as_control", "contrast_of", "is_eligible"]


def contrast_of(plan: Plan, adapter: str | None) -> Contrast:
    """Return the experiment's contrast; `adapter` is the one that the request names."""
    return "exit" if adapter is None or plan.holdout_base is None else "training"


def is_eligible(plan: Plan, request: EngineRequest, effective: Effective) -> bool:
    """Return whether a request takes part: there is something to withhold, and it set no policy
    itself."""
    settings = effective.settings
    if effective.sources or settings.shadow:
        return False
    if settings.policy != "none":
        return True
    # If the policy abstained, the request may have caused it.
    return effective.abstained is None and contrast_of(plan, request.adapter) == "training"


def as_control(
    plan: Plan, request: EngineRequest, settings: ExitSettings
) -> tuple[EngineRequest, ExitSettings]:
    """Return the request and settings that serve it in the control arm."""
    served_by_base = contrast_of(plan, request.adapter) == "training"
    without = dataclasses.replace(settings, policy="none")
    return request.without_adapter() if served_by_base else request, without


def add_outcome(
    store: SumStore,
    record: SequenceRecord,
    arm: Arm,
    baseline: Baseline | None,
    contrast: Contrast = "exit",
) -> None:
    """Add a sequence that ended, however it ended."""
    predicted = baseline.predict(record.prompt_tokens, longer_than=0) if baseline else None
    expected = predicted.tokens if predicted else 0.0
    name: ArmName = "held" if arm.control else "exited"
    series = holdout_series(name, "completion", contrast)
    key = Key(series, record.model_name, record.counted_as, cell(record.stratum, arm.group))
    store.add(key, ServedTokens.one(record.completion_tokens, expected)._asdict())
    engine = record.generated_tokens + record.probe_tokens
    key = key._replace(series=holdout_series(name, "engine", contrast))
    store.add(key, ServedTokens.one(engine, expected)._asdict())
