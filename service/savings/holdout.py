"""The holdout's sums: what became of the requests of both sides.

Only what the server's own default policy decides is held out. A request that names a policy, a
budget or an effort gets it.
"""

from service.ledger import SequenceRecord
from service.savings.series import Side, holdout
from service.savings.store import Key, SumStore
from stepgrpo_core import Baseline
from stepgrpo_core.fleet import Served
from stepgrpo_core.holdout import Place

__all__ = ["enter"]


def enter(store: SumStore, record: SequenceRecord, place: Place, baseline: Baseline | None) -> None:
    """Add a sequence that ended, whatever became of it."""
    predicted = baseline.predict(record.prompt_tokens, longer_than=0) if baseline else None
    tokens = predicted.tokens if predicted else 0.0
    side: Side = "held" if place.held else "exited"
    key = Key(holdout(side, "completion"), record.model_name, record.counted_as, place.group)
    store.add(key, Served.one(record.completion_tokens, tokens)._asdict())
    engine = record.generated_tokens + record.probe_tokens
    key = key._replace(series=holdout(side, "engine"))
    store.add(key, Served.one(engine, tokens)._asdict())
