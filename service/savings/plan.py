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
    """Settings of the measurement. Raises InvalidSetting for values that cannot work."""

    holdout: float = 0.0
    """Share of conversations in the control arm, which are served without exits."""
    holdout_base: str | None = None
    """Model that serves the control arm of an adapter; None: the adapter does."""
    pairs: float = 0.0
    """Share of requests with a paired continuation."""
    pairs_load: float = 0.1
    """Largest share of the running sequences that may be continuations; one may always run."""
    pairs_url: str | None = None
    """Server that generates continuations; None: this server's engine."""
    pairs_base: str | None = None
    """Base model against which savings of training are measured; None: they are not."""
    agreement: float | None = None
    """Share of answers that exits must leave unchanged; None: no quality gate."""
    agreement_pairs: int = 100
    """Judged pairs before the quality gate decides."""
    probation: float | None = None
    """Seconds until a switched-off policy is tried again; None: an operator switches it on."""
    state: Path | None = None
    """State file that stores the sums."""

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
