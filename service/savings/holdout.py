"""The holdout on the server: who is served without exits, and the sums that compare the sides.

Only what the server's own default policy decides is held out. A request that names a policy, a
budget or an effort gets it.
"""

from dataclasses import dataclass
from pathlib import Path

from service.ledger import SequenceRecord
from service.savings.store import Key, Side, SumStore
from stepgrpo_core import Baseline
from stepgrpo_core.fleet import Served
from stepgrpo_core.holdout import Holdout, Place

__all__ = ["HoldoutBook", "open_book"]


@dataclass(frozen=True, slots=True)
class HoldoutBook:
    """Deals conversations to the sides, and enters what became of them."""

    dealer: Holdout
    store: SumStore

    def place(self, conversation: bytes) -> Place:
        """The side and the random group of a conversation."""
        return self.dealer.place(conversation)

    def enter(self, record: SequenceRecord, place: Place, baseline: Baseline | None) -> None:
        """Add a sequence that ended, whatever became of it."""
        predicted = baseline.predict(record.prompt_tokens, longer_than=0) if baseline else None
        tokens = predicted.tokens if predicted else 0.0
        side: Side = "held" if place.held else "exited"
        key = Key(record.model_name, record.policy, side, "completion", place.group)
        self.store.add(key, Served.one(record.completion_tokens, tokens))
        engine = record.generated_tokens + record.probe_tokens
        self.store.add(key._replace(measure="engine"), Served.one(engine, tokens))


def open_book(share: float, path: Path | None) -> HoldoutBook | None:
    """The book in the file `path`, None without a share; raises InvalidSetting."""
    if not share:
        return None
    store = SumStore(path)
    return HoldoutBook(Holdout(share, store.secret("holdout")), store)
