"""The operator's settings of how savings are measured."""

from dataclasses import dataclass
from pathlib import Path

from service.clients.openai import Address
from stepgrpo_core import InvalidSetting

__all__ = ["KEY_VARIABLE", "SECONDS", "Plan"]

KEY_VARIABLE = "STEPGRPO_PAIRS_API_KEY"
SECONDS = 600.0  # timeout of a remote continuation


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of the holdout, pairs and quality gate. Raises InvalidSetting."""

    holdout: float = 0.0
    """Share of conversations, from 0 to 1, that are served without exits, to measure what exits
    save. Requests that set a policy, a budget or an effort are not among them."""
    holdout_base: str | None = None
    """Name of the base model, which then serves the held-out requests to its adapters, to measure
    what their training saves. None means that the adapters serve them."""
    pairs: float = 0.0
    """Share of requests, from 0 to 1, that run once more in the background without exits, to
    measure what exits save and whether they change answers."""
    pairs_load: float = 0.1
    """Largest share of the running sequences that may be paired runs, above 0, up to 1. One may
    always run, and none starts while requests queue."""
    pairs_url: str | None = None
    """Base URL of a server that makes the paired runs from token ids, such as
    http://replica:8000/v1; its API key comes from STEPGRPO_PAIRS_API_KEY. None means this server's
    own engine."""
    pairs_base: str | None = None
    """Name of the base model, here beside its adapters or at pairs_url: requests without exits are
    paired with it, to measure what training saves. None means no such pairs."""
    agreement: float | None = None
    """Share of answers, between 0 and 1, that exits must leave unchanged: the quality gate disables
    a policy whose paired runs have a 95 % interval that begins below it. None means no gate."""
    agreement_pairs: int = 100
    """Judged pairs, from 20 to 500, that the quality gate needs before it decides."""
    probation: float | None = None
    """Seconds until a disabled policy is tried again. None means that an operator enables it
    with stepgrpo-serve guard."""
    state: Path | None = None
    """SQLite file that keeps the sums of savings, and that several servers on one machine can
    share. None means that the sums end with the server."""

    def __post_init__(self) -> None:
        for name in ("holdout", "pairs"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidSetting(name, getattr(self, name), "use a number from 0 to 1")
        if not 0 < self.pairs_load <= 1:
            raise InvalidSetting("pairs_load", self.pairs_load, "use a number above 0, up to 1")
        self._check_quality_gate()
        if self.holdout_base is not None and not self.holdout:
            raise InvalidSetting("holdout_base", self.holdout_base, "set holdout as well")
        for name in ("pairs_url", "pairs_base", "agreement"):
            if getattr(self, name) is not None and not self.pairs:
                raise InvalidSetting(name, getattr(self, name), "set pairs as well")
        if self.pairs_url is not None:
            Address(self.pairs_url, SECONDS).check("pairs_url", KEY_VARIABLE)

    def _check_quality_gate(self) -> None:
        if self.agreement is not None and not 0 < self.agreement < 1:
            remedy = "use a number between 0 and 1, such as 0.95"
            raise InvalidSetting("agreement", self.agreement, remedy)
        if not 20 <= self.agreement_pairs <= 500:
            raise InvalidSetting("agreement_pairs", self.agreement_pairs, "use 20 to 500")
        if self.probation is not None and self.probation < 1:
            raise InvalidSetting("probation", self.probation, "use seconds, 1 or more")

    @property
    def measures(self) -> bool:
        """True if anything is measured."""
        return bool(self.holdout or self.pairs)
