"""The holdout's sums: what became of the requests of both sides.

Only what the server's own default policy decides is held out. A request that names a policy, a
budget or an effort gets it.

Held out of exits, a request is served by the same model without them. Where the plan names a base
model, those of a trained one, an adapter beside it, are served by the base instead. That is another
comparison, with sums of its own.
"""

import dataclasses

from service.engine.request import EngineRequest
from service.params import Effective
from service.records.sequence import SequenceRecord
from service.savings.plan import Plan
from service.savings.state.contents import Key, cell
from service.savings.state.series import Compared, Side, holdout
from service.savings.state.store import SumStore
from stepgrpo_core import Baseline, ExitSettings
from stepgrpo_core.savings.estimators import ServedTokens
from stepgrpo_core.savings.holdout import Arm

__all__ = ["compared", "enter", "takes_part", "withheld"]


def compared(plan: Plan, adapter: str | None) -> Compared:
    """What a request's side is compared with; `adapter` is the one that it names."""
    return "exit" if adapter is None or plan.holdout_base is None else "training"


def takes_part(plan: Plan, job: EngineRequest, effective: Effective) -> bool:
    """Whether there is anything to withhold from a request that asked for nothing itself."""
    settings = effective.settings
    if effective.sources or settings.shadow:
        return False
    if settings.policy != "none":
        return True
    # One whose policy stepped aside may have asked for it.
    return effective.abstained is None and compared(plan, job.adapter) == "training"


def withheld(
    plan: Plan, job: EngineRequest, settings: ExitSettings
) -> tuple[EngineRequest, ExitSettings]:
    """A request as it is served when it is held out."""
    by_base = compared(plan, job.adapter) == "training"
    return job.without_adapter() if by_base else job, dataclasses.replace(settings, policy="none")


def enter(
    store: SumStore,
    record: SequenceRecord,
    place: Arm,
    baseline: Baseline | None,
    against: Compared = "exit",
) -> None:
    """Add a sequence that ended, whatever became of it."""
    predicted = baseline.predict(record.prompt_tokens, longer_than=0) if baseline else None
    tokens = predicted.tokens if predicted else 0.0
    side: Side = "held" if place.control else "exited"
    series = holdout(side, "completion", against)
    key = Key(series, record.model_name, record.counted_as, cell(record.stratum, place.group))
    store.add(key, ServedTokens.one(record.completion_tokens, tokens)._asdict())
    engine = record.generated_tokens + record.probe_tokens
    key = key._replace(series=holdout(side, "engine", against))
    store.add(key, ServedTokens.one(engine, tokens)._asdict())
